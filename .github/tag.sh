#!/usr/bin/env bash
#
# The tag by which other repositories find the action of a deployed environment; jobs of platform.yaml call this.
#
#   tag.sh check     before a deploy: refuse what could not be tagged after it
#   tag.sh move      after it: move the tag TAG to the commit of this job, and say how to pin the action
#   tag.sh release   make a release of the commit, which has a tag of its own
#
# TAG and TOKEN come from the job, the rest from GitHub.
set -euo pipefail

repository=$GITHUB_SERVER_URL/$GITHUB_REPOSITORY

error() { # TITLE TEXT
  echo "::error title=$1::$2"
  exit 1
}

push() { # REFSPEC...
  local login
  login=$(printf 'x-access-token:%s' "$TOKEN" | base64 --wrap=0)
  echo "::add-mask::$login"
  # By the environment: other programs may see arguments.
  GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0="http.$GITHUB_SERVER_URL/.extraheader" \
    GIT_CONFIG_VALUE_0="Authorization: Basic $login" git push --force "$repository" "$@"
}

contains() { # COMMIT ANCESTOR
  local code=0
  git merge-base --is-ancestor "$2" "$1" || code=$?
  ((code < 2)) || error 'this checkout lacks commits' 'the job needs fetch-depth: 0, fetch-tags: true'
  return "$code"
}

tagged() { # the commit that the tag names; empty for none
  git rev-parse --quiet --verify "refs/tags/$TAG^{commit}" || true
}

not_backwards() {
  local before
  before=$(tagged)
  if [[ -n $before && $before != "$GITHUB_SHA" ]] && contains "$before" "$GITHUB_SHA"; then
    error "$TAG would go backwards" "$before contains this commit and is deployed already. When this push was overtaken \
by a newer one, there is nothing to do. To go back, push a commit that reverts what came after this one"
  fi
}

check() {
  # Outside the names that a ruleset for the tags protects: it goes again.
  local trial=refs/tags/trial/$TAG before
  not_backwards
  before=$(tagged)
  # Whether GitHub lets this job move a tag to the commit is not documented in full: it depends on which branches have the
  # same workflow files. So it is tried.
  if ! { push "${before:-$GITHUB_SHA}:$trial" && push "$GITHUB_SHA:$trial"; }; then
    error "GitHub does not let this run move $TAG" "the lines above say why; nothing was deployed. When the branch has \
moved on with other files in .github/workflows, the run of the newer commit can move it"
  fi
  push ":$trial" || echo "::warning title=the tag trial/$TAG stays::the lines above say why; remove it by hand"
}

move() {
  not_backwards
  push "$GITHUB_SHA:refs/tags/$TAG" || error "the tag $TAG has not moved" "the lines above say why; the environment is \
deployed. When the branch has moved on with other files in .github/workflows, GitHub refuses it to this run, and the run of \
the newer commit moves it"
  {
    echo "### $TAG"
    echo
    echo 'Where an organization requires actions to be pinned to a commit:'
    echo
    echo '```yaml'
    echo "uses: $GITHUB_REPOSITORY/register_action@$GITHUB_SHA # $TAG"
    echo '```'
  } | tee -a "$GITHUB_STEP_SUMMARY"
}

release() { # what was deployed stays deployed without one
  local name
  name=release-$(git show --no-patch --format=%cd --date=format:%Y%m%d "$GITHUB_SHA")-${GITHUB_SHA:0:12}
  if ! command -v gh >/dev/null; then
    echo "::notice title=no release was made::this runner has no gh; the commit is deployed and tagged $TAG"
  elif GH_TOKEN=$TOKEN gh release view "$name" --repo "$GITHUB_REPOSITORY" >/dev/null 2>&1; then
    echo "release $name exists"
  else
    # The tag first: a release that creates one takes more permissions than a job can have.
    if ! { push "$GITHUB_SHA:refs/tags/$name" && GH_TOKEN=$TOKEN gh release create "$name" --repo "$GITHUB_REPOSITORY" \
      --verify-tag --generate-notes --notes "uses: $GITHUB_REPOSITORY/register_action@$GITHUB_SHA # $TAG"; }; then
      echo "::warning title=no release $name was made::the lines above say why. The commit is deployed and tagged $TAG"
    fi
  fi
}

case ${1:-} in
  check | move | release) "$1" ;;
  *) error 'tag.sh' 'usage: tag.sh check | move | release' ;;
esac
