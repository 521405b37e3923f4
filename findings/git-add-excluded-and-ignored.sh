#!/bin/sh
# `git add . ':(exclude)build'` fails if .gitignore names build too, after it has staged everything else.
#
# Expected: exit status 0. What is excluded is removed from what was asked for (gitglossary(7), pathspec), so that nobody has asked
#   for build; and git-add(1) fails for an ignored path only where that path itself was specified.
# Seen: status 1, and the advice to use -f "if you really want to add them", with all other files staged. The same with `:!build`
#   and with the list in a file. An excluded pattern such as `:(exclude)buil*`, or an excluded path that is not ignored, does no harm;
#   neither does the same pathspec given to `git status` or `git diff`.
# Versions: git 2.39.5.
# Matters: whoever builds the list of exclusions from what is there (nested repositories, build directories) fails as soon as
#   somebody adds one of them to .gitignore. Ask `git check-ignore` first, and exclude only what it does not name.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
export HOME="$dir" GIT_CONFIG_NOSYSTEM=1

cat > stated <<'END'
:(exclude)build: status 1, staged .gitignore file, Use -f if you really want to add them.
:!build: status 1, staged .gitignore file, Use -f if you really want to add them.
:(exclude)buil*: status 0, staged .gitignore file,
:(exclude)other: status 0, staged .gitignore file,
END

git init --quiet --initial-branch=main work
mkdir work/build work/other
touch work/file work/build/out work/other/kept
echo build > work/.gitignore
cd work
for pathspec in ':(exclude)build' ':!build' ':(exclude)buil*' ':(exclude)other'; do
    rm -f .git/index
    status=0
    git add --all . "$pathspec" ':(exclude)other' 2> ../said || status=$?
    staged=$(git ls-files | tr '\n' ' ')
    echo "$pathspec: status $status, staged ${staged% }, $(sed -n 's/^hint: \(Use -f\)/\1/p' ../said)" | sed 's/ $//' >> ../seen
done
cd ..
diff -u stated seen && echo "OK: as stated"
