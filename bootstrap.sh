#!/usr/bin/env bash
#
# Sets up a fresh Debian or Ubuntu machine for this project; see usage() below.
#
# Every thing the project needs is a pair of functions: NAME_ready looks (and changes nothing, so
# that is all --check calls), NAME_make provides. Things that do not wait for each other are made
# side by side, each with a log of its own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin # Debian leaves these out of a user's PATH

# The base image has the same name wherever it came from; only one from a registry has the digest.
readonly BASE_FILE=agent/base_image/Dockerfile
BASE_IMAGE=$(sed -n 's/^FROM \([^@]*\)@sha256:.*/\1/p' "$BASE_FILE")
BASE_DIGEST=$(sed -n 's/^FROM [^@]*@\(sha256:[0-9a-f]*\)$/\1/p' "$BASE_FILE")
readonly BASE_IMAGE BASE_DIGEST BASE_SUITE=${BASE_IMAGE##*-}

readonly TERRAFORM_MINIMUM=1.10 # the S3 backend locks without a DynamoDB table since then
readonly TERRAFORM_RELEASE=1.11.4
declare -rA TERRAFORM_SHA256=( # as published with the release
    [linux_amd64]=1ce994251c00281d6845f0f268637ba50c0005657eb3cf096b92f753b42ef4dc
    [linux_arm64]=a43d1d0da9b9bab214a8305a39db0e40869572594ccf50c416a7756499143633
)
readonly TERRAFORM_REGISTRY=https://registry.terraform.io/.well-known/terraform.json
readonly AWS_PROVIDER=registry.terraform.io/hashicorp/aws/5.100.0

readonly LOCAL=.local # everything made here that is neither .venv nor part of the machine
readonly LOGS=$LOCAL/logs
readonly LOCK=requirements/tools.txt
readonly STAMP=.venv/.made-from
readonly DOCKER_SOCKET=/var/run/docker.sock
readonly CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt

usage() {
    cat <<'TEXT'
usage: ./bootstrap.sh [--check | --help]

Sets up this machine (Debian or Ubuntu, as root or with sudo): the project's .venv, Terraform and
its AWS provider, a Docker engine, and the base image of the agent. What is there already is left
as it is, so it may be run again at any time. Logs: .local/logs/bootstrap-*.log

  --check   only report; exit 1 if something is missing
TEXT
}

# --- saying what happens --------------------------------------------------------------------------

exec 3>&1 # for people; inside a step, stdout and stderr are the step's log
if [ -t 3 ]; then
    readonly GREEN=$'\e[32m' YELLOW=$'\e[33m' RED=$'\e[31m' PLAIN=$'\e[0m'
else
    readonly GREEN='' YELLOW='' RED='' PLAIN=''
fi

say() { # COLOUR STATE THING TEXT: one line, in one write, so that lines of parallel steps stay whole
    printf '%s%-7s%s  %-10s %s\n' "$1" "$2" "$PLAIN" "$3" "$4" >&3
}

doing() { say "$YELLOW" '...' "$step" "$1"; } # for what takes long

# Each NAME_ready and NAME_make leaves one line in `found`; a NAME_make that cannot go on leaves the
# next thing for the person to do in `hint`.
found='' hint='' step='' started=0
scrap='' # a file to remove at the end, however that comes
python='' # set by python_ready

give_up() { # WHAT HINT
    found=$1 hint=$2
    exit 1
}

end_of_lane() { # its EXIT trap
    local status=$? log=$LOGS/bootstrap-$step.log text=''
    [ -z "$scrap" ] || rm -f "$scrap"
    ((status == 0 || status > 128)) && return # all is well, or interrupted by the person
    if [ -s "$log" ]; then
        text=$(tail -n 8 "$log" | sed 's/^/           | /')$'\n'"           log:  $log"$'\n'
    fi
    text+="           next: ${hint:-read the log, put it right and run ./bootstrap.sh again}"
    say "$RED" failed "$step" "${found:-stopped with exit code $status} ($((SECONDS - started)) s)"$'\n'"$text"
}

# --- running steps --------------------------------------------------------------------------------

ensure() { # NAME: look, and provide what is not there
    step=$1 started=$SECONDS found='' hint=''
    if "${step}_ready" 2>/dev/null; then
        say "$GREEN" ok "$step" "$found"
    elif $check_only; then
        say "$RED" missing "$step" "$found"
        complete=false
    else
        : >"$LOGS/bootstrap-$step.log"
        found=''
        "${step}_make" >"$LOGS/bootstrap-$step.log" 2>&1
        say "$GREEN" 'done' "$step" "$found ($((SECONDS - started)) s)"
    fi
}

lane() { # NAME...: things that need each other, in this order
    local complete=true name
    trap end_of_lane EXIT
    for name; do ensure "$name"; done
    $complete
}

# --- the machine ----------------------------------------------------------------------------------

as_root() { # sudo never asks here: a step has no terminal; ask_for_sudo went before
    if ((EUID == 0)); then "$@"; else sudo -n "$@"; fi
}

may_install() { # is this a Debian, and are we its root?
    [ -e /etc/debian_version ] && command -v apt-get && as_root true
}

readonly AS_ROOT='on Debian or Ubuntu, run this as root or with a working sudo' # a hint

apt_install() { # PACKAGE...
    # Lists of other parties may be out of reach; only the installation itself has to succeed.
    as_root apt-get update || true
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$@"
}

human() { awk -v bytes="$1" 'BEGIN { printf "%.0f MB", bytes / 1e6 }'; }

# --- curl: the only helper this script itself needs -----------------------------------------------

curl_ready() {
    found='curl is not installed'
    command -v curl >/dev/null || return
    found=$(command -v curl)
}

curl_make() {
    may_install || give_up 'curl is not installed' "install curl ($AS_ROOT, and it does so itself)"
    apt_install curl ca-certificates
    curl_ready
}

# --- Python and the project's .venv ---------------------------------------------------------------

python_ready() {
    local name
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        # ensurepip is what Debian leaves out when python3-venv is not installed
        if "$name" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            python=$(command -v "$name")
            found=$("$python" --version)
            return
        fi
    done
    found='no Python 3.11 or newer with venv'
    return 1
}

python_make() {
    give_up 'no Python 3.11 or newer with venv' \
        'apt-get install python3 python3-venv (or python3.11 and python3.11-venv, where python3 is older)'
}

# A .venv belongs to one lock and to one place: its scripts have its path in their first lines.
venv_origin() { printf '%s %s\n' "$(sha256sum <"$LOCK")" "$PWD"; }

tools_ready() {
    found='.venv is not there'
    [ -x .venv/bin/python ] || return
    found="$LOCK has changed since .venv was made"
    [ "$(cat "$STAMP")" = "$(venv_origin)" ] || return
    found='.venv matches requirements/tools.txt'
}

tools_make() {
    local count compile=()
    count=$(grep --count '^[a-z0-9].*==' "$LOCK")
    # Where Python may not keep what it compiles, each command would compile all that it imports anew.
    [ -z "${PYTHONDONTWRITEBYTECODE:-}" ] || compile=(--compile-bytecode)
    doing "installing the locked packages ($count) into .venv"
    found='the locked packages could not be installed'
    hint='the packages come from where pip and uv are set to look for them: check the network and their settings'
    if ! .venv/bin/uv --version || [[ "$(cat "$STAMP")" != *" $PWD" ]]; then
        [ ! -L .venv ] || rm .venv # a link to another checkout's: that one stays as it is
        "$python" -m venv --clear .venv
        .venv/bin/python -m pip install --require-hashes --requirement requirements/uv.txt
    fi
    rm -f "$STAMP"
    # The system's certificates: behind a proxy that opens TLS only these know its authority.
    .venv/bin/uv pip sync --system-certs --require-hashes "${compile[@]}" --python .venv/bin/python "$LOCK"
    venv_origin >"$STAMP"
    found='.venv made from requirements/tools.txt'
}

# --- Terraform and its AWS provider ---------------------------------------------------------------

platform() { # as HashiCorp names it: linux_amd64
    local machine
    machine=$(uname -m)
    case $machine in
        x86_64) machine=amd64 ;;
        aarch64) machine=arm64 ;;
    esac
    printf '%s_%s\n' "$(uname -s | tr '[:upper:]' '[:lower:]')" "$machine"
}

terraform_ready() {
    local command version
    found="no Terraform $TERRAFORM_MINIMUM or newer"
    # The same choice as the project makes: ours, once it had to be downloaded.
    command=$LOCAL/bin/terraform
    [ -x "$command" ] || command=$(command -v terraform) || return
    version=$(CHECKPOINT_DISABLE=1 "$command" version -json | sed -n 's/.*"terraform_version": *"\([^"]*\)".*/\1/p')
    [ -n "$version" ] || return
    printf '%s\n' "$TERRAFORM_MINIMUM" "$version" | sort --check=quiet --version-sort || return
    found="Terraform $version ($command)"
}

terraform_make() {
    local target archive=$LOCAL/bin/terraform.zip
    target=$(platform)
    hint="install Terraform $TERRAFORM_MINIMUM or newer by hand, so that it is on PATH"
    [ -n "${TERRAFORM_SHA256[$target]:-}" ] || give_up "no Terraform, and none to download for $target" "$hint"
    doing "downloading Terraform $TERRAFORM_RELEASE"
    found="Terraform $TERRAFORM_RELEASE could not be downloaded"
    mkdir -p "$LOCAL/bin"
    curl --fail --silent --show-error --location --connect-timeout 10 --retry 2 --output "$archive" \
        "https://releases.hashicorp.com/terraform/$TERRAFORM_RELEASE/terraform_${TERRAFORM_RELEASE}_$target.zip"
    sha256sum --check <<<"${TERRAFORM_SHA256[$target]}  $archive" ||
        give_up 'the downloaded Terraform is not the published one (wrong sha256)' "$hint"
    "$python" -m zipfile --extract "$archive" "$LOCAL/bin" # unzip is often not installed
    rm "$archive"
    chmod +x "$LOCAL/bin/terraform"
    terraform_ready
}

# The project hands .local/terraform.rc to Terraform (TF_CLI_CONFIG_FILE): it says where the
# provider comes from, so the answer is looked for once.
provider_ready() {
    local folder
    found='where the AWS provider comes from is not settled'
    folder=$(sed -n 's/^ *\(path\|plugin_cache_dir\) *= *"\(.*\)"$/\2/p' "$LOCAL/terraform.rc") || return
    [ -d "$folder" ] || return
    found="hashicorp/aws ${AWS_PROVIDER##*/}, by way of $folder"
}

find_mirror() { # prints the folder that holds registry.terraform.io/, if this machine has one
    local target places provider hit
    target=$(platform)
    # Local file systems only: a search must not wander through a network share. What Terraform has
    # unpacked for some project (its folder "providers", a cache of ours) goes when that project goes.
    mapfile -t places < <(df --local --output=target -x tmpfs -x devtmpfs | tail -n +2)
    provider=$AWS_PROVIDER/$target
    hit=$(find "${places[@]}" -xdev \
        \( -path /proc -o -path /sys -o -path /dev -o -path /var/lib/docker \
        -o -path '*/providers/registry.terraform.io' -o -path "*/$LOCAL/terraform-plugins" \
        -o -name .git -o -name node_modules -o -name site-packages \) -prune \
        -o \( -path "*/$provider" \
        -o -path "*/${AWS_PROVIDER%/*}/terraform-provider-aws_${AWS_PROVIDER##*/}_$target.zip" \) \
        -print -quit) || true # what a user may not read is no reason to stop
    printf '%s' "${hit%%/registry.terraform.io/*}"
}

provider_make() {
    local folder
    if curl --fail --silent --location --max-time 3 --output /dev/null "$TERRAFORM_REGISTRY"; then
        mkdir -p "$LOCAL/terraform-plugins"
        folder=$PWD/$LOCAL/terraform-plugins
        printf 'plugin_cache_dir = "%s"\n' "$folder" >"$LOCAL/terraform.rc"
    else
        doing 'the Terraform registry is out of reach: looking for a copy of the provider on this machine'
        folder=$(find_mirror)
        [ -n "$folder" ] || give_up 'the Terraform registry is out of reach, and this machine has no copy' \
            "let this machine reach registry.terraform.io, or lay a folder with $AWS_PROVIDER anywhere on it"
        cat >"$LOCAL/terraform.rc" <<RC
provider_installation {
  filesystem_mirror {
    path    = "$folder"
    include = ["registry.terraform.io/hashicorp/*"]
  }
  direct {
    exclude = ["registry.terraform.io/hashicorp/*"]
  }
}
RC
    fi
    provider_ready
}

# --- Docker engine --------------------------------------------------------------------------------

api() { # METHOD PATH [CURL ARGUMENT...]: one call to the engine; the Docker CLI need not be there
    local method=$1 path=$2 host=${DOCKER_HOST:-unix://$DOCKER_SOCKET} base
    shift 2
    case $host in
        unix://*) base=http://docker && set -- --unix-socket "${host#unix://}" "$@" ;;
        tcp://*)
            base=http://${host#tcp://}
            if [ -n "${DOCKER_TLS_VERIFY:-}" ]; then
                local certificates=${DOCKER_CERT_PATH:-$HOME/.docker}
                base=https://${host#tcp://}
                set -- --cacert "$certificates/ca.pem" --cert "$certificates/cert.pem" --key "$certificates/key.pem" "$@"
            fi
            ;;
        *) echo "cannot talk to DOCKER_HOST=$host" >&2 && return 1 ;;
    esac
    curl --fail --silent --show-error --noproxy '*' --connect-timeout 5 --request "$method" "$@" "$base$path"
}

engine_ready() {
    local version
    found='no Docker engine answers'
    version=$(api GET /version --max-time 10) || return
    version=${version%%'","ApiVersion"'*} # the engine's own; its parts have versions too
    found="Docker engine ${version##*'"Version":"'}"
}

engine_make() {
    [ -z "${DOCKER_HOST:-}" ] || give_up "no Docker engine answers at DOCKER_HOST=$DOCKER_HOST" \
        'start that engine, or unset DOCKER_HOST to use one on this machine'
    may_install || give_up 'no Docker engine answers' \
        "$AS_ROOT; anywhere else, install and start one: https://docs.docker.com/engine/install/"
    if ! root_can_ping; then
        if ! command -v dockerd; then
            doing 'installing the Docker engine (docker.io)'
            apt_install docker.io iptables ca-certificates
        fi
        root_can_ping || start_engine
        wait_for_engine
    fi
    api GET /_ping || give_access
    engine_ready
}

root_can_ping() {
    as_root curl --fail --silent --max-time 5 --unix-socket "$DOCKER_SOCKET" http://docker/_ping
}

forget_dead() { # PID FILE...: an engine that was killed leaves these behind, and the next one would wait for it
    local file
    for file; do
        # A process that has died has no program any more, even while its parent has not noticed (a zombie).
        case $(as_root readlink "/proc/$(as_root cat "$file")/exe") in
            */dockerd* | */containerd*) ;;
            *) as_root rm -f "$file" ;;
        esac
    done
}

start_engine() {
    if [ -d /run/systemd/system ]; then
        as_root systemctl enable --now docker
        return
    fi
    forget_dead /var/run/docker.pid /var/run/docker/containerd/containerd.pid
    [ ! -e /var/run/docker.pid ] || return 0 # it is just coming up
    doing 'starting the Docker engine (no systemd here; log: /var/log/dockerd.log)'
    # On its own: it outlives this script and keeps none of its files open.
    as_root sh -c 'exec 3>&-; setsid dockerd >>/var/log/dockerd.log 2>&1 </dev/null &'
}

wait_for_engine() {
    local end=$((SECONDS + 60))
    until root_can_ping; do
        ((SECONDS < end)) || give_up 'the Docker engine does not answer after 60 s' \
            "read /var/log/dockerd.log (with systemd: journalctl -u docker)"
        sleep 0.5
    done
}

give_access() {
    local user
    user=$(id -un)
    as_root usermod --append --groups docker "$user"
    # A group counts from the next login on; the access list serves this one.
    command -v setfacl || apt_install acl
    as_root setfacl --modify "user:$user:rw" "$DOCKER_SOCKET" ||
        give_up "user $user is in the group docker from the next login on" 'log in again and run ./bootstrap.sh again'
    doing "user $user may use the engine now, and by the group docker from the next login on"
}

# --- base image -----------------------------------------------------------------------------------

image_ready() {
    local image size digest=${BASE_DIGEST:0:19}
    found="$BASE_FILE names no image with a digest"
    [ -n "$BASE_IMAGE" ] && [ -n "$BASE_DIGEST" ] || return
    found="$BASE_IMAGE is not there"
    image=$(api GET "/images/$BASE_IMAGE/json" --max-time 10) || return
    size=$(grep --only-matching --max-count=1 '"Size":[0-9]*' <<<"$image")
    found="$BASE_IMAGE, $(human "${size#*:}")"
    if grep --quiet "$BASE_DIGEST" <<<"$image"; then
        found+=", $digest"
    elif grep --quiet 'dataflow.bootstrap' <<<"$image"; then
        found+=", built locally from Debian packages, not $digest: no registry could be reached"
    else
        found="$BASE_IMAGE is not $digest"
        return 1
    fi
}

image_make() {
    [ -n "$BASE_IMAGE" ] && [ -n "$BASE_DIGEST" ] || give_up "$BASE_FILE names no image with a digest" \
        "git checkout $BASE_FILE"
    doing "pulling $BASE_IMAGE@$BASE_DIGEST"
    # The answer is a stream of progress; whether it worked is seen by looking again. A pulled digest has no tag.
    api POST "/images/create?fromImage=${BASE_IMAGE%:*}&tag=$BASE_DIGEST" --max-time 120 || true
    api POST "/images/${BASE_IMAGE%:*}@$BASE_DIGEST/tag?repo=${BASE_IMAGE%:*}&tag=${BASE_IMAGE##*:}" || true
    image_ready && return
    may_install || give_up "$BASE_IMAGE cannot be pulled" \
        "let the Docker engine reach its registry, or build the image: $AS_ROOT"
    doing "no registry gave it: building $BASE_IMAGE from Debian packages (about half a minute)"
    found="$BASE_IMAGE could not be built"
    hint='the packages come from the mirror that apt uses: check that apt-get update works'
    build_image
    image_ready
}

debian_mirror() { # LABEL: the mirror this machine's apt has for it, if any
    apt-get indextargets 'Created-By: Packages' 'Origin: Debian' "Label: $1" | sed -n 's/^Repo-URI: //p' | head -n 1
}

build_image() {
    local mirror security keyring=/usr/share/keyrings/debian-archive-keyring.gpg sources=()
    apt_install mmdebstrap debian-archive-keyring ca-certificates
    # Without one (Ubuntu's apt has none), mmdebstrap uses the mirror it knows for Debian.
    mirror=$(debian_mirror Debian)
    security=$(debian_mirror Debian-Security)
    [ -z "$mirror" ] || sources+=("deb [signed-by=$keyring] $mirror $BASE_SUITE main")
    [ -z "$security" ] || sources+=("deb [signed-by=$keyring] $security $BASE_SUITE-security main")

    scrap=$(mktemp "${TMPDIR:-/var/tmp}/base-image-XXXXXX.tar")
    # usr-is-merged stands in for usrmerge, which would bring 50 MB of Perl.
    # The host's certificates go in: what is built on this image uses the same network.
    as_root mmdebstrap --variant=apt --include=python3,python3-venv,ca-certificates,usr-is-merged \
        --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/info/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --customize-hook="ln -s python3 \"\$1/usr/bin/python\"" \
        --customize-hook="upload $CA_BUNDLE $CA_BUNDLE" \
        --format=tar "$BASE_SUITE" - ${sources[@]+"${sources[@]}"} >"$scrap"
    import_image "$scrap"
}

import_image() { # TAR ARCHIVE
    local change query="fromSrc=-&repo=${BASE_IMAGE%:*}&tag=${BASE_IMAGE##*:}"
    for change in \
        'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
        'ENV LANG=C.UTF-8' \
        "ENV PIP_CERT=$CA_BUNDLE" \
        "ENV SSL_CERT_FILE=$CA_BUNDLE" \
        "ENV REQUESTS_CA_BUNDLE=$CA_BUNDLE" \
        'LABEL dataflow.bootstrap="built by bootstrap.sh from Debian packages, as no registry could be reached"' \
        'CMD ["python3"]'; do
        query+="&changes=$("$python" -c 'import sys, urllib.parse; print(urllib.parse.quote(sys.argv[1]))' "$change")"
    done
    api POST "/images/create?$query" --header 'Content-Type: application/x-tar' --upload-file "$1"
}

# --- main -----------------------------------------------------------------------------------------

ask_for_sudo() { # in the foreground, where it can ask; the lanes cannot
    ((EUID == 0)) && return
    (engine_ready && image_ready) >/dev/null 2>&1 && return
    command -v sudo >/dev/null || return 0 # the lane says so
    sudo -n true 2>/dev/null || { [ -t 0 ] && sudo -v; } || true
}

main() {
    check_only=false
    case ${1:-} in
        '') ;;
        --check) check_only=true ;;
        --help | -h) usage && return ;;
        *) usage >&2 && return 2 ;;
    esac

    local lanes=() steps names pid failed=false
    if $check_only; then
        local complete=true
        for step in curl python tools terraform provider engine image; do ensure "$step"; done
        $complete || return 1
        return
    fi

    mkdir -p "$LOGS"
    ask_for_sudo
    trap end_of_lane EXIT
    ensure curl
    ensure python # the lanes use what it finds
    trap - EXIT

    # Job control gives each lane a process group, so that Ctrl-C ends all that it has started.
    set -m
    trap 'for pid in "${lanes[@]}"; do kill -- "-$pid" 2>/dev/null || true; done; echo; echo Interrupted.; exit 130' INT TERM
    for steps in 'tools' 'terraform provider' 'engine image'; do
        read -ra names <<<"$steps"
        (lane "${names[@]}") </dev/null &
        lanes+=($!)
    done
    for pid in "${lanes[@]}"; do
        wait "$pid" || failed=true
    done
    set +m

    if $failed; then
        printf '\nNot complete: see "failed" above. What is done stays done; run ./bootstrap.sh again.\n'
        return 1
    fi
    printf '\nReady. Next: .venv/bin/invoke deploy\n'
}

main "$@"
