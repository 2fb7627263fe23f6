#!/bin/sh
# {{ ansible_managed }}
# certbot calls this after it renewed a certificate, and the role after it got one: nginx serves the new one,
# or goes on with the old one and the journal says why.
set -eu
live={{ __flower_acme_live }}
tls={{ __flower_certificate | dirname }}
stamp={{ __flower_proxy_stamp }}
# Other certificates of the host have hooks of their own.
[ "${RENEWED_LINEAGE:-}" = "$live" ] || exit 0

fail() {
    echo "$1" >&2
    logger --id=$$ --tag flower-certificate --priority daemon.err -- "$1" || true
    exit 1
}

# Copies, and not links: what nginx reads is whole at any time, whatever certbot is doing or somebody deletes.
umask 077
cp "$live/fullchain.pem" "$tls/certificate.pem.new"
cp "$live/privkey.pem" "$tls/private_key.pem.new"
for name in certificate private_key; do
    rm -f "$tls/$name.pem.old"
    [ ! -e "$tls/$name.pem" ] || ln "$tls/$name.pem" "$tls/$name.pem.old"
done
chmod 0644 "$tls/certificate.pem.new"
for name in private_key certificate; do
    mv "$tls/$name.pem.new" "$tls/$name.pem"
done
if ! said=$(/usr/sbin/nginx -t 2>&1); then
    for name in private_key certificate; do
        [ ! -e "$tls/$name.pem.old" ] || mv "$tls/$name.pem.old" "$tls/$name.pem"
    done
    fail "{{ __flower_acme_name }}: nginx goes on with the old certificate, since it refuses its configuration: $(echo "$said" | grep -m 1 emerg || echo "$said" | head -n 1)"
fi
rm -f "$tls/certificate.pem.old" "$tls/private_key.pem.old"
systemctl try-reload-or-restart nginx.service || fail "{{ __flower_acme_name }}: nginx did not reload: see systemctl status nginx.service"
# The role need not reload it once more.
[ ! -e "$stamp" ] || touch "$stamp"
logger --id=$$ --tag flower-certificate --priority daemon.info -- "{{ __flower_acme_name }}: nginx serves the new certificate" || true
