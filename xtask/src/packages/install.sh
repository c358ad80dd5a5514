# Installs the packages named as arguments, for their programs only: no service starts while this
# runs, and none that came with them starts at the next boot.
set -eu

policy=/usr/sbin/policy-rc.d
saved=$policy.saved-by-xtask

restore() {
    rm -f "$policy"
    [ ! -e "$saved" ] || mv "$saved" "$policy"
}

# A saved file that exists already is the machine's own, left by a run that was killed.
[ -e "$saved" ] || [ ! -e "$policy" ] || mv "$policy" "$saved"
trap restore EXIT
trap 'exit 130' INT TERM HUP
printf '#!/bin/sh\nexit 101\n' > "$policy"
chmod 755 "$policy"

install() {
    apt-get install --yes --quiet --no-install-recommends "$@"
}

install "$@" || {
    # The lists may name versions that the mirror has replaced since.
    apt-get update --quiet
    install "$@"
}

for package in "$@"; do
    dpkg-query --listfiles "$package" | while read -r file; do
        case $file in
        /lib/systemd/system/*@.service | /usr/lib/systemd/system/*@.service) ;;
        /lib/systemd/system/*.service | /usr/lib/systemd/system/*.service)
            ! command -v systemctl > /dev/null || systemctl disable --quiet "${file##*/}" || true
            ;;
        /etc/init.d/*)
            ! command -v update-rc.d > /dev/null || update-rc.d "${file##*/}" disable 2> /dev/null || true
            ;;
        esac
    done
done
