#!/bin/bash
# Resolve the hashed locks anew: each shipped Flower with the newest of all that it needs. Wheels only, for Python 3.10 and newer.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

for version in 2.2.0 2.1.0; do
  lock=roles/flower/files/locks/flower-${version}.txt
  new=$(mktemp)
  {
    echo "# Flower ${version} and all that it needs, for Python 3.10 and newer. Made by scripts/update-locks.sh; do not edit."
    # Neither uv's nor pip's configuration counts: the hashes must be those that everybody gets.
    printf '%s\n' "flower==${version}" 'celery[redis]' libpass bcrypt joserfc msgspec hiredis sqlalchemy alembic 'psycopg[binary]' \
      | .venv/bin/uv pip compile --no-config --universal --python-version 3.10 --no-python-downloads --generate-hashes \
        --only-binary :all: --no-emit-index-url --no-header --no-annotate --quiet -
  } >"${new}"
  chmod 0644 "${new}"
  mv "${new}" "${lock}"
  echo "${lock}"
done
