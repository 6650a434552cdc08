#!/bin/bash
# An ordinary user with a systemd --user of her own: what $SC_RUNTIME does for her, alone and below her podman.
set -euo pipefail
# shellcheck source=integration/guest/checks
. "$(dirname "$0")/checks"

# tester (see guest-build) has 65536 ids in /etc/subuid, and a user manager that was given cpu, memory and pids.
systemctl start user@1000.service
as_user() {
    setpriv --reuid 1000 --regid 1000 --init-groups env -C /home/tester HOME=/home/tester PATH="$PATH" \
        XDG_RUNTIME_DIR=/run/user/1000 DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus "$@"
}
# She cannot read everything that root can.
install -m 755 "$SC_RUNTIME" "/tmp/$(basename "$SC_RUNTIME")"
runtime=/tmp/$(basename "$SC_RUNTIME")

# A bundle of hers: `bundle FILTER-OF-JQ` changes the config that the runtime itself proposes.
bundle=/home/tester/bundle
bundle() {
    if [[ ! -d $bundle ]]; then
        as_user mkdir -p "$bundle/rootfs/bin"
        install -o tester -g tester "$(command -v busybox)" "$bundle/rootfs/bin/busybox"
        as_user "$bundle/rootfs/bin/busybox" --install -s "$bundle/rootfs/bin" 2>/dev/null || true
        for applet in sh cat sleep id tail; do as_user ln -sf busybox "$bundle/rootfs/bin/$applet"; done
    fi
    as_user rm -f "$bundle/config.json"
    as_user env -C "$bundle" "$runtime" spec --rootless
    jq '.process.terminal = false | '"$1" "$bundle/config.json" >/tmp/config.json
    install -o tester -g tester -m 644 /tmp/config.json "$bundle/config.json"
}
call() { as_user "$runtime" --systemd-cgroup "$@"; }
scopes() { as_user systemctl --user list-units --all --no-legend --plain 'runc-*.scope' 'libpod-*.scope' | grep -v conmon || true; }
property() { as_user systemctl --user show --value -p "$2" "$1"; }

run_is_in_a_scope_of_the_users_manager() {
    bundle '.process.args = ["sh", "-c", "cat /proc/self/cgroup; exit 7"] |
        .linux.namespaces |= map(select(.type != "cgroup"))'
    status_of call run --bundle "$bundle" mine
    same "exit status" 7 "$status"
    contains "its cgroup" /user.slice/user-1000.slice/user@1000.service/user.slice/runc-mine.scope "$output"
    same "scopes" "" "$(scopes)"
}

a_scope_lives_from_create_to_delete() {
    local cgroup pid
    bundle '.process.args = ["sleep", "1000"]'
    call create --bundle "$bundle" mine </dev/null >/dev/null 2>&1
    call start mine
    pid=$(call state mine | jq .pid)
    cgroup=/sys/fs/cgroup$(property runc-mine.scope ControlGroup)
    same "the process's cgroup" "$cgroup" "/sys/fs/cgroup$(cut -d: -f3 "/proc/$pid/cgroup")"
    same "id inside" 0 "$(call exec mine id -u)"
    same "cgroup of exec" "$(cut -d: -f3 "/proc/$pid/cgroup")" "$(
        call exec --detach --pid-file /home/tester/pid mine sleep 1000 </dev/null >/dev/null 2>&1
        cut -d: -f3 "/proc/$(</home/tester/pid)/cgroup"
    )"
    call pause mine
    same "status" paused "$(call state mine | jq -r .status)"
    call resume mine
    same "processes" 2 "$(call ps --format json mine | jq length)"
    call delete --force mine
    same "scopes" "" "$(scopes)"
    [[ ! -e $cgroup ]] || same "the cgroup" gone "$cgroup"
}

limits_reach_systemd_and_the_kernel() {
    local cgroup
    bundle '.process.args = ["sleep", "1000"] |
        .linux.resources = {memory: {limit: 67108864}, pids: {limit: 33}, cpu: {quota: 50000, period: 100000}}'
    call create --bundle "$bundle" mine </dev/null >/dev/null 2>&1
    cgroup=/sys/fs/cgroup$(property runc-mine.scope ControlGroup)
    same MemoryMax 67108864 "$(property runc-mine.scope MemoryMax)"
    same TasksMax 33 "$(property runc-mine.scope TasksMax)"
    same memory.max 67108864 "$(<"$cgroup/memory.max")"
    same pids.max 33 "$(<"$cgroup/pids.max")"
    same cpu.max "50000 100000" "$(<"$cgroup/cpu.max")"
    call update --pids-limit 44 --memory 134217728 mine
    same TasksMax 44 "$(property runc-mine.scope TasksMax)"
    same memory.max 134217728 "$(<"$cgroup/memory.max")"
    call delete --force mine
}

a_limit_without_its_controller_is_refused() {
    # systemd gives hugetlb to nobody.
    bundle '.process.args = ["sh"] | .linux.resources = {hugepageLimits: [{pageSize: "2MB", limit: 2097152}]}'
    status_of call run --bundle "$bundle" mine
    [[ $status != 0 ]] || same "exit status" "not 0" "$status"
    contains "message" hugetlb "$output"
    same "scopes" "" "$(scopes)"
}

without_a_manager_the_option_is_an_error() {
    bundle '.process.args = ["true"]'
    status_of as_user env -u XDG_RUNTIME_DIR -u DBUS_SESSION_BUS_ADDRESS "$runtime" --root /home/tester/state \
        --systemd-cgroup run --bundle "$bundle" mine
    [[ $status != 0 ]] || same "exit status" "not 0" "$status"
    contains "message" "systemd --user" "$output"
}

# podman, which makes the user namespace itself and calls the runtime as its root.
podman() { as_user podman --runtime "$runtime" "$@"; }
run() { podman run --network none "$@"; }
has_podman() {
    as_user podman image exists "$image" && return
    command podman save --quiet --format oci-archive --output /tmp/image.tar "$image"
    chmod 644 /tmp/image.tar
    as_user podman load --quiet --input /tmp/image.tar
}

podman_run_shows_output_and_exit_status() {
    has_podman
    status_of run --rm "$image" sh -c 'id -u; exit 7'
    same "exit status" 7 "$status"
    same "output" 0 "${output##*$'\n'}"
    same "scopes" "" "$(scopes)"
}

podman_cgroupfs_runs_too() {
    has_podman
    status_of as_user podman --runtime "$runtime" --cgroup-manager cgroupfs run --rm --network none "$image" sh -c 'exit 7'
    same "exit status" 7 "$status"
}

podman_maps_and_keeps_ids() {
    has_podman
    same "another id" $'1000\n1001' "$(run --rm --user 1000:1001 "$image" sh -c 'id -u; id -g')"
    same "her own id" 1000 "$(run --rm --userns keep-id "$image" id -u)"
}

podman_limits_bite() {
    local scope cgroup
    has_podman
    run -d --name limits --memory 32m --memory-swap 32m --pids-limit 33 --cpus 0.5 "$image" \
        sh -c 'tail /dev/zero; echo "tail: $?"; sleep 1000'
    scope=libpod-$(podman inspect -f '{{.Id}}' limits).scope
    cgroup=/sys/fs/cgroup$(property "$scope" ControlGroup)
    same memory.max 33554432 "$(<"$cgroup/memory.max")"
    same pids.max 33 "$(<"$cgroup/pids.max")"
    same cpu.max "50000 100000" "$(<"$cgroup/cpu.max")"
    same TasksMax 33 "$(property "$scope" TasksMax)"
    podman update --cpus 1 --pids-limit 44 limits
    same "pids.max after update" 44 "$(<"$cgroup/pids.max")"
    eventually is_logged limits 'tail: 137'
    podman rm --force --time 0 limits
    same "scopes" "" "$(scopes)"
}

podman_life_of_a_detached_container() {
    has_podman
    run -d --name life "$image" sh -c 'trap "echo bye; exit 3" TERM; echo ready; while :; do sleep 0.1; done'
    eventually is_logged life ready
    same "exec" 0 "$(podman exec life id -u)"
    podman pause life
    same "status" paused "$(podman inspect -f '{{.State.Status}}' life)"
    podman unpause life
    podman stop --time 60 life
    same "exit status" 3 "$(podman wait life)"
    podman start life
    podman kill life
    same "exit status" 137 "$(podman wait life)"
    podman rm life
}

podman_has_its_own_network() {
    has_podman
    status_of podman run --rm "$image" ip -o link show
    same "exit status" 0 "$status"
    contains "interfaces" "lo:" "$output"
}

# As in an unprivileged LXC: a systemd that is PID 1 of a user namespace, in a tree of links to this machine's files.
root_of_a_machine_within_has_a_systemd_of_its_own() {
    local tree=/srv/tree dir
    mkdir -p "$tree"/{run,proc,sys,dev,tmp,root,opt,var/log/journal,var/lib}
    for dir in bin sbin lib lib64 usr etc; do cp -al "/$dir" "$tree/"; done
    find "$tree" -maxdepth 3 -path "$tree/usr" -prune -o -path "$tree/etc" -prune -o -exec chown -h tester:tester {} +
    as_user tee "$tree/opt/inside" >/dev/null <<'SCRIPT'
set -ex
mkdir -p /tmp/bundle/rootfs/bin
cp /bin/busybox /tmp/bundle/rootfs/bin/sh
cd /tmp/bundle
sc=/opt/runtime
$sc spec
jq '.process.terminal = false | .process.args = ["sh", "-c", "sleep 1000"]' config.json >new
mv new config.json
$sc --systemd-cgroup create inner </dev/null >/dev/null 2>&1
$sc start inner
systemctl is-active runc-inner.scope
$sc exec inner sh -c 'read line </proc/self/cgroup; echo "exec $line"'
$sc update --pids-limit 22 inner
systemctl show -p TasksMax runc-inner.scope
echo "pids.max $(cat /sys/fs/cgroup/system.slice/runc-inner.scope/pids.max)"
$sc delete --force inner
systemctl show -p LoadState runc-inner.scope
SCRIPT
    cp "$runtime" "$tree/opt/runtime"
    podman run --detach --name machine --privileged --network none --systemd always --rootfs "$tree" /lib/systemd/systemd
    eventually podman exec machine systemctl is-active basic.target
    status_of podman exec machine bash /opt/inside
    same "exit status" 0 "$status"
    same "what systemd and the kernel say" \
        $'active\nexec 0::/\nTasksMax=22\npids.max 22\nLoadState=not-found' "$(grep -v '^+' <<<"$output")"
    podman rm --force --time 0 machine
    rm -rf "$tree"
}

nothing_is_left() {
    as_user podman rm --all --force --time 0
    nothing_left "*/user@1000.service/*/libpod-*" /run/user/1000/runc
}

is_logged() { podman logs "$1" 2>&1 | grep -q "$2"; }

check run_is_in_a_scope_of_the_users_manager
check a_scope_lives_from_create_to_delete
check limits_reach_systemd_and_the_kernel
check a_limit_without_its_controller_is_refused
check without_a_manager_the_option_is_an_error
check podman_run_shows_output_and_exit_status
check podman_cgroupfs_runs_too
check podman_maps_and_keeps_ids
check podman_limits_bite
check podman_life_of_a_detached_container
check podman_has_its_own_network
check root_of_a_machine_within_has_a_systemd_of_its_own
check nothing_is_left
finish
