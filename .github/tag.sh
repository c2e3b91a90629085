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

push() { # REFSPEC
  local login
  login=$(printf 'x-access-token:%s' "$TOKEN" | base64 --wrap=0)
  echo "::add-mask::$login"
  # By the environment: other programs may see arguments.
  GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0="http.$GITHUB_SERVER_URL/.extraheader" \
    GIT_CONFIG_VALUE_0="Authorization: Basic $login" git push --force "$repository" "$1"
}

check() {
  local tagged trial=refs/tags/${TAG}_trial
  tagged=$(git rev-parse --quiet --verify "refs/tags/$TAG^{commit}" || true)
  if [[ -n $tagged && $tagged != "$GITHUB_SHA" ]] && git merge-base --is-ancestor "$GITHUB_SHA" "$tagged"; then
    error "$TAG would go backwards" "the newer commit $tagged, which contains this one, is deployed already. To go back, \
push a commit that reverts it, or bring back an earlier agent with invoke rollback"
  fi
  # Whether GitHub lets this job tag the commit is not documented in full: it depends on which branches have the same
  # workflow files, and on rulesets. So it is tried.
  push "$GITHUB_SHA:$trial" || error "GitHub does not let this run move $TAG" "the lines above say why; nothing was \
deployed. When the branch has moved on with other files in .github/workflows, the run of the newer commit can move it"
  push ":$trial"
}

move() {
  push "$GITHUB_SHA:refs/tags/$TAG" || error "the tag $TAG has not moved" "the lines above say why. The environment is \
deployed; run this job again to move the tag"
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

release() {
  local name
  name=release-$(git show --no-patch --format=%cd --date=format:%Y%m%d "$GITHUB_SHA")-${GITHUB_SHA:0:12}
  if ! command -v gh >/dev/null; then
    echo "::notice title=no release was made::this runner has no gh; the commit is deployed and tagged $TAG"
  elif GH_TOKEN=$TOKEN gh release view "$name" --repo "$GITHUB_REPOSITORY" >/dev/null 2>&1; then
    echo "release $name exists"
  else
    GH_TOKEN=$TOKEN gh release create "$name" --repo "$GITHUB_REPOSITORY" --target "$GITHUB_SHA" --generate-notes \
      --notes "uses: $GITHUB_REPOSITORY/register_action@$GITHUB_SHA # $TAG" ||
      error "no release $name was made" "the lines above say why. The commit is deployed and tagged $TAG"
  fi
}

case ${1:-} in
  check | move | release) "$1" ;;
  *) error 'tag.sh' 'usage: tag.sh check | move | release' ;;
esac
