#!/usr/bin/env bash
# A Flower on this machine, for a laptop: its own virtual environment, bound to 127.0.0.1.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: scripts/start-flower.sh [BROKER_URL] [PORT]

  BROKER_URL   default redis://localhost:6379/0; also amqp://guest:guest@localhost:5672//
               and rediss, amqps, sentinel, redis+socket; - takes CELERY_BROKER_URL
  PORT         default 5555

Environment:
  FLOWER_BASIC_AUTH            user:password[,user:password] to sign in with; without it Flower is open
  FLOWER_OAUTH2_REDIRECT_URI   for signing in by a provider (with FLOWER_AUTH, FLOWER_AUTH_PROVIDER,
                               FLOWER_OAUTH2_KEY and FLOWER_OAUTH2_SECRET)
  FLOWER_MAX_TASKS             tasks kept in memory, default 10000
Every other FLOWER_* variable of Flower's own is read too.

The first start makes the virtual environment .venv-flower in the repository.

No .env file is read by itself.  To use one:  set -a; . ./.env; set +a; scripts/start-flower.sh -
A broker URL with a password on the command line stays in your shell's history; with - it comes from
CELERY_BROKER_URL.  Flower's environment holds it: you and root can read it there, nobody else.
For a server use the role, which keeps secrets out of there too.
TEXT
}

fail() {
  printf 'start-flower.sh: %s\n' "$1" >&2
  exit 2
}

if [[ ${1-} == -h || ${1-} == --help ]]; then usage; exit 0; fi
if (($# > 2)); then fail 'give a broker URL and a port, nothing more (--help tells).'; fi

root=$(cd -- "${BASH_SOURCE[0]%/*}/.." && pwd)
broker=${1:-redis://localhost:6379/0} port=${2:-5555}
if [[ $broker == --handed-over ]]; then
  IFS= read -r broker <&3
  exec 3<&-
elif [[ $broker == - ]]; then
  broker=${CELERY_BROKER_URL:-}
  if [[ -z $broker ]]; then fail 'CELERY_BROKER_URL is not set.'; fi
elif [[ $broker == *@* ]]; then
  # a new process without the URL in its arguments; it comes through a pipe instead
  exec 3<<<"$broker"
  exec "$BASH" "${BASH_SOURCE[0]}" --handed-over "$port"
fi
# no program that is started before Flower needs these
unset CELERY_BROKER_URL FLOWERBED_SETTINGS
basic_auth=${FLOWER_BASIC_AUTH:-} oauth_secret=${FLOWER_OAUTH2_SECRET:-} cookie_secret=${FLOWER_COOKIE_SECRET:-}
unset FLOWER_BASIC_AUTH FLOWER_OAUTH2_SECRET FLOWER_COOKIE_SECRET

if ! [[ $port =~ ^[1-9][0-9]{0,4}$ ]] || ((port > 65535)); then fail 'the port must be a number from 1 to 65535.'; fi
if ! command -v python3 >/dev/null; then fail 'python3 is needed and not here.'; fi

# the URL goes in by standard input, as no argument may hold it
sentence=$(PYTHONPATH=$root/roles/flower/files python3 -c '
import socket, sys
from urllib.parse import urlsplit
if sys.version_info < (3, 10):
    sys.exit("python3 is older than 3.10.")
schemes = ("redis", "rediss", "amqp", "amqps", "sentinel", "redis+socket")
for url in sys.stdin.read().strip().split(";"):
    try:
        parts = urlsplit(url)
        good = parts.scheme in schemes and (parts.netloc or "socket" in parts.scheme) and (parts.port or 1)
    except ValueError:
        good = False
    if not good:
        sys.exit("the broker URL must look like redis://localhost:6379/0 or amqp://user:password@host:5672// "
                 "(schemes: " + ", ".join(schemes) + "; special characters in the password %-quoted).")
number = int(sys.argv[1])
with socket.socket() as probe:
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind(("127.0.0.1", number))
    except PermissionError:
        sys.exit(f"port {number} needs root; choose one above 1023.")
    except OSError:
        from flowerbed.doctor.programs import port_holder
        holder = port_holder(number) or "another program"
        sys.exit(f"port {number} is taken by {holder}; stop it, or choose another: start-flower.sh BROKER_URL PORT.")
' "$port" <<<"$broker" 2>&1 >/dev/null) || fail "${sentence##*$'\n'}"

# The virtual environment: stamped when it is complete, made anew when the lock or Python changed or it was interrupted.
lock=$root/roles/flower/files/locks/flower-2.2.0.txt venv=$root/.venv-flower
stamp=$(python3 -c '
import hashlib, sys
print(hashlib.sha256(open(sys.argv[1], "rb").read() + sys.version.encode()).hexdigest())' "$lock")
exec 9<"$root"
if command -v flock >/dev/null; then flock 9; fi
if [[ $(cat "$venv/.complete" 2>/dev/null) != "$stamp" ]]; then
  echo "Making the virtual environment $venv, once ..." >&2
  rm -rf -- "$venv"
  python3 -m venv "$venv" || fail 'the virtual environment cannot be made (on Debian: apt install python3-venv).'
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock" \
    || fail 'the packages cannot be installed: see the error above (index, proxy and certificates are set as for any pip).'
  printf '%s\n' "$stamp" >"$venv/.complete"
fi
exec 9<&-

export CELERY_BROKER_URL=$broker FLOWER_PORT=$port FLOWER_ADDRESS=127.0.0.1 FLOWER_MAX_TASKS=${FLOWER_MAX_TASKS:-10000}
export PYTHONPATH=$root/roles/flower/files${PYTHONPATH:+:$PYTHONPATH}
if [[ -n $basic_auth ]]; then export FLOWER_BASIC_AUTH=$basic_auth; fi
if [[ -n $oauth_secret ]]; then export FLOWER_OAUTH2_SECRET=$oauth_secret; fi
if [[ -n $cookie_secret ]]; then export FLOWER_COOKIE_SECRET=$cookie_secret; fi
if [[ -z $basic_auth && -z ${FLOWER_AUTH:-} ]]; then
  echo 'Warning: no FLOWER_BASIC_AUTH is set, so everybody on this machine may use this Flower.' >&2
fi
echo "Flower at http://localhost:$port"
exec "$venv/bin/python" -m flowerbed run --broker-env
