#!/bin/bash
# podman runs containers with $SC_RUNTIME: their life, their limits (read back and hit) and what is left of them.
set -euo pipefail
# shellcheck source=integration/guest/checks
. "$(dirname "$0")/checks"

# What a user sets up once: sc-runtime does what podman asks of a runtime that writes its log as JSON.
cat >/etc/containers/containers.conf.d/sc-runtime.conf <<'END'
[engine]
runtime_supports_json = ["crun", "runc", "sc-runtime"]
END

podman() { command podman --cgroup-manager cgroupfs --runtime "$SC_RUNTIME" "$@"; }
# podman's own bridge network takes 10 s to set up here: one check has it.
run() { podman run --network none "$@"; }
in_image() { run --rm "$@"; }
exists() { podman container exists "$1"; }

run_shows_output_and_exit_status() {
    status_of in_image "$image" sh -c 'echo out; echo err >&2; exit 7'
    same "exit status" 7 "$status"
    same "output" $'out\nerr' "$output"
}

run_has_a_terminal() {
    status_of script -qec "$(printf '%q ' command podman --cgroup-manager cgroupfs --runtime "$SC_RUNTIME" run --rm -t \
        --network none "$image" sh -c 'tty; exit 5')" /dev/null
    same "exit status" 5 "$status"
    same "tty" /dev/pts/0 "${output%%$'\r'*}"
}

checkpointed_container_goes_on() {
    local count='i=0; while :; do i=$((i+1)); echo $i; sleep 0.2; done'
    command -v criu >/dev/null || skip "no program criu"
    run -d --name saved --memory 64m "$image" sh -c "$count"
    eventually is_logged saved "^5$"
    podman container checkpoint saved
    same "running" false "$(podman inspect -f '{{.State.Running}}' saved)"
    podman container restore saved
    eventually is_logged saved "^20$"
    same "what it said" "$(seq 20)" "$(podman logs saved | head -n 20)"
    podman container checkpoint --export /tmp/saved.tar.gz saved
    podman rm --force --time 0 saved
    podman container restore --import /tmp/saved.tar.gz --name moved
    eventually is_logged moved "^40$"
    same memory.max 67108864 "$(podman exec moved cat /sys/fs/cgroup/memory.max)"
    podman rm --force --time 0 moved
    rm /tmp/saved.tar.gz
}

limits_are_in_the_kernel() {
    local cgroup
    run -d --name limits "${limits[@]}" "$image" sleep 1000
    cgroup=/sys/fs/cgroup$(podman inspect -f '{{.State.CgroupPath}}' limits)
    same "the process's cgroup" "$cgroup" "/sys/fs/cgroup$(cut -d: -f3 "/proc/$(podman inspect -f '{{.State.Pid}}' limits)/cgroup")"
    has_limits "$cgroup"
    podman rm --force --time 0 limits
}

limits_are_visible_inside() {
    same "memory.max and pids.max" $'67108864\n33' \
        "$(in_image --memory 64m --pids-limit 33 "$image" cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max)"
}

# No cpu quota beside it: the two together thrash for minutes.
too_much_memory_is_killed() {
    local cgroup
    run -d --name oom --memory 16m --memory-swap 16m "$image" sh -c 'tail /dev/zero; echo "tail: $?"; sleep 1000'
    eventually is_logged oom 'tail: 137'
    cgroup=/sys/fs/cgroup$(podman inspect -f '{{.State.CgroupPath}}' oom)
    cat "$cgroup/memory.events"
    same "oom_kill" 1 "$(sed -n 's/^oom_kill //p' "$cgroup/memory.events")"
    podman rm --force --time 0 oom
}

killed_init_is_137() {
    status_of in_image --memory 16m --memory-swap 16m "$image" tail /dev/zero
    same "exit status" 137 "$status"
}

too_many_processes_are_refused() {
    local cgroup
    run -d --name pids --pids-limit 5 "$image" \
        sh -c '(for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done); trap "exit 0" TERM; while :; do :; done'
    eventually is_logged pids "can't fork"
    cgroup=/sys/fs/cgroup$(podman inspect -f '{{.State.CgroupPath}}' pids)
    grep -qx 'max [1-9][0-9]*' "$cgroup/pids.events" || same "pids.events" "max above 0" "$(<"$cgroup/pids.events")"
    podman rm --force --time 0 pids
}

hostname_is_set() {
    same "hostname" harbour "$(in_image --hostname harbour "$image" hostname)"
}

readonly_volume_is_readonly() {
    mkdir -p /root/volume
    echo kept >/root/volume/file
    status_of in_image -v /root/volume:/volume:ro "$image" sh -c 'cat /volume/file; echo lost >/volume/file'
    same "exit status" 1 "$status"
    same "output" $'kept\nsh: can\'t create /volume/file: Read-only file system' "$output"
    same "the file" kept "$(</root/volume/file)"
}

readonly_root_is_readonly() {
    status_of in_image --read-only "$image" sh -c 'touch /tmp/works && touch /refused'
    same "exit status" 1 "$status"
    same "output" 'touch: /refused: Read-only file system' "$output"
}

user_and_capabilities_are_given() {
    same "ids" $'1000\n1001\n1001 7' "$(in_image --user 1000:1001 --group-add 7 "$image" sh -c 'id -u; id -g; id -G')"
    same "sets with only net_bind_service" $'CapPrm:\t0000000000000400\nCapEff:\t0000000000000400\nCapBnd:\t0000000000000400' \
        "$(in_image --cap-drop all --cap-add net_bind_service "$image" grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status)"
}

bridge_network_is_joined() {
    status_of podman run --rm "$image" ip -o -4 addr show eth0
    contains "address of eth0" "inet 10.88." "$output"
}

# podman's own choice: a scope of systemd for each container.
scope_of() { echo "libpod-$(podman inspect -f '{{.Id}}' "$1").scope"; }
in_scope() { command podman --cgroup-manager systemd --runtime "$SC_RUNTIME" "$@"; }
shows() { same "$2 of $1" "$3" "$(systemctl show --value -p "$2" "$1")"; }

systemd_has_the_scope_and_its_limits() {
    local scope cgroup
    in_scope run -d --name scoped --security-opt seccomp=unconfined --network none --memory 64m --memory-swap 64m \
        --pids-limit 33 --cpus 0.5 "$image" sleep 1000
    scope=$(scope_of scoped)
    cgroup=/sys/fs/cgroup$(systemctl show --value -p ControlGroup "$scope")
    same "the process's cgroup" "$cgroup" "/sys/fs/cgroup$(cut -d: -f3 "/proc/$(podman inspect -f '{{.State.Pid}}' scoped)/cgroup")"
    shows "$scope" MemoryMax 67108864
    shows "$scope" TasksMax 33
    same memory.max 67108864 "$(<"$cgroup/memory.max")"
    same cpu.max "50000 100000" "$(<"$cgroup/cpu.max")"
    in_scope update --memory 128m --memory-swap 128m --pids-limit 44 scoped
    shows "$scope" MemoryMax 134217728
    shows "$scope" TasksMax 44
    same memory.max 134217728 "$(<"$cgroup/memory.max")"
    same pids.max 44 "$(<"$cgroup/pids.max")"
    in_scope pause scoped
    same "frozen" 1 "$(sed -n 's/^frozen //p' "$cgroup/cgroup.events")"
    in_scope unpause scoped
    in_scope kill scoped
    same "exit status" 137 "$(in_scope wait scoped)"
    in_scope start scoped
    shows "$scope" ActiveState active
    in_scope rm --force --time 0 scoped
    shows "$scope" LoadState not-found
}

systemd_run_shows_exit_status() {
    status_of in_scope run --rm --security-opt seccomp=unconfined --network none "$image" sh -c 'cat /proc/self/cgroup; exit 7'
    same "exit status" 7 "$status"
    same "its cgroup, seen from inside" 0::/ "$output"
    same "scopes" "" "$(systemctl list-units --all --no-legend --plain 'libpod-*.scope' | grep -v conmon)"
}

nothing_is_left() {
    podman rm --all --force --time 0 # what a failed check has not come to
    nothing_left "*/libpod-*" "/run/$(basename "$SC_RUNTIME")"
}

check run_shows_output_and_exit_status
check run_passes_stdin_on
check run_has_a_terminal
check missing_program_is_127_and_a_directory_126
check detached_container_stops_and_is_removed
check killed_container_can_start_again
check checkpointed_container_goes_on
check limits_are_in_the_kernel
check limits_are_visible_inside
check too_much_memory_is_killed
check killed_init_is_137
check too_many_processes_are_refused
check hostname_is_set
check readonly_volume_is_readonly
check readonly_root_is_readonly
check user_and_capabilities_are_given
check bridge_network_is_joined
check systemd_has_the_scope_and_its_limits
check systemd_run_shows_exit_status
check nothing_is_left
finish
