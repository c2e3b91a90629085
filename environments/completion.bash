# Completes tasks, options and environments of invoke in bash: source environments/completion.bash
# Invoke's own script asks the invoke in PATH; this one asks the one that is being typed, such as .venv/bin/invoke.

_invoke_environments=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

_invoke() {
    local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} words word
    local line=("${COMP_WORDS[@]:1:COMP_CWORD}")
    # Bash makes three words of --env=dev.
    [[ $before == "=" ]] && before=${COMP_WORDS[COMP_CWORD - 2]}
    [[ $current == "=" ]] && current=
    if [[ $before == "--env" || $before == "-e" ]]; then
        words=$(cd "$_invoke_environments" && printf '%s\n' *.tfvars | sed 's/[.]tfvars$//')
    else
        if [[ $before == -* && $current != -* ]]; then
            # Invoke says nothing when the option before takes a value; then bash offers files.
            line=("${COMP_WORDS[@]:1:COMP_CWORD-1}")
        elif [[ $COMP_CWORD -gt 1 && -z $current ]]; then
            line+=("--") # behind a task its options are wanted, more than another task
        fi
        words=$("${COMP_WORDS[0]}" --complete -- invoke "${line[@]}" 2>/dev/null)
    fi
    COMPREPLY=()
    while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen -W "$words" -- "$current")
}

complete -o default -F _invoke invoke inv
