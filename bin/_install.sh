# Sourced by the other scripts: installs what is missing, and nothing that is there.
# Needs root, bash and apt. Puts Python packages into .venv of this repository only.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv="$root/.venv"
# Kamailio's embedded Python is the system's: it finds its home by the first python3 in PATH.
export PATH="/usr/sbin:/usr/bin:/sbin:/bin:$PATH"

packages=(
  kamailio kamailio-python3-modules kamailio-extra-modules kamailio-utils-modules
  kamailio-tls-modules sip-tester netbase python3 python3-venv iproute2 openssl ca-certificates
)
# What the benchmark compares with; the tests run it where there is no network to install from.
bench_packages=(nftables ipset iptables kamailio-lua-modules util-linux)
# What the tests alone need: a database server, promtool, a browser for the status page, a terminal;
# the firewall's tools; what checks units and the Debian package, and the clean root for it.
test_packages=(
  postgresql prometheus chromium fonts-dejavu-core tmux groff-base
  conntrack fail2ban systemd lintian debootstrap "${bench_packages[@]}"
)

say() { printf '%s\n' "$*" >&2; }

install_packages() {
  local missing=() name
  for name in "${packages[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  if [ "$(id -u)" -ne 0 ]; then
    say "missing packages: ${missing[*]}; install them, or run this as root"
    exit 1
  fi
  say "installing with apt: ${missing[*]}"
  local policy=/usr/sbin/policy-rc.d made_policy=no
  if [ ! -e "$policy" ]; then
    # Debian's kamailio package would start a SIP server with its stock configuration.
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
    made_policy=yes
  fi
  local status=0
  { apt-get update -q \
    && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends --no-remove \
      "${missing[@]}"; } \
    2>&1 | sed -u -n -E 's/^(Get:|Setting up|E:|W:)/  \1/p' >&2 || status=$?
  [ "$made_policy" = yes ] && rm -f "$policy"
  [ "$status" -eq 0 ] || say "apt did not install ${missing[*]} (and may remove nothing for them)"
  return "$status"
}

install_python() {
  local stamp="$venv/.installed" want
  want=$(cd "$root" && { cat requirements-dev.lock pyproject.toml kemi/stubs/pyproject.toml; /usr/bin/python3 -V; } | sha256sum)
  [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$want" ] && return 0
  say "installing the Python packages into .venv"
  rm -rf "$venv"
  /usr/bin/python3 -m venv "$venv"
  "$venv/bin/python" -m pip install -q --disable-pip-version-check --require-hashes \
    -r "$root/requirements-dev.lock" 2> >(grep -v '^WARNING: Location' >&2)
  "$venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps --no-index \
    --no-build-isolation -e "$root" -e "$root/kemi/stubs"
  printf '%s' "$want" > "$stamp"
}

install_all() {
  install_packages
  install_python
}
