#!/usr/bin/env bash
# Is this Flower well?  One line a check.  Needs only python3 (3.10 or newer).
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: scripts/test-flower.sh URL [--json] [--cacert FILE] [--only CHECKS] [--timeout SECONDS]

  URL   http://host[:port]/prefix, or http://user:password@host[:port]/prefix,
        or - to read it from standard input

Checks, one line each: ui, auth, tasks, metrics, workers, broker, security.
Exit: 0 all passed, 1 not accessible, 2 no workers, 3 authentication or security, 64 bad usage.

The password: a URL on the command line is in your shell's history, and for some milliseconds in
`ps`, until this script has handed it on through a pipe.  The safe way is a file with mode 0600:

  scripts/test-flower.sh - < ~/.flower-url

Special characters in the password must be %-quoted: %40 for @, %2F for /, %23 for #.
TEXT
}

here=$(cd -- "${BASH_SOURCE[0]%/*}" && pwd)
files=$here/../roles/flower/files
url='' options=()
while (($#)); do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --cacert | --only | --timeout)
      if (($# < 2)); then echo "test-flower.sh: $1 needs a value." >&2; exit 64; fi
      options+=("$1" "$2")
      shift
      ;;
    -?*) options+=("$1") ;;
    *)
      if [[ -n $url ]]; then echo 'test-flower.sh: give one URL only.' >&2; exit 64; fi
      url=$1
      ;;
  esac
  shift
done
if [[ -z $url ]]; then usage >&2; exit 64; fi
if ! command -v python3 >/dev/null; then echo 'test-flower.sh: python3 is needed and not here.' >&2; exit 64; fi

# -I: neither the working directory nor PYTHON* variables have a say in what is imported; -B: nothing is written
start='import runpy, sys
if sys.version_info < (3, 10):
    print("test-flower.sh: python3 is older than 3.10.", file=sys.stderr)
    sys.exit(64)
sys.path.insert(0, sys.argv.pop(1))
runpy.run_module("flowerbed.doctor", run_name="__main__")'
# exec: this shell's own arguments, which hold the URL, are gone from /proc from here on
if [[ $url == - ]]; then
  exec python3 -I -B -c "$start" "$files" - ${options[@]+"${options[@]}"}
fi
exec python3 -I -B -c "$start" "$files" - ${options[@]+"${options[@]}"} <<<"$url"
