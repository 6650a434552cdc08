#!/bin/bash
# containerd's shim runs containers with $SC_RUNTIME: their life and what is left of them.
set -euo pipefail
# shellcheck source=integration/guest/checks
. "$(dirname "$0")/checks"

systemctl start containerd.service

# ctr asks for seccomp and systemd's cgroups only when told to.
run() { ctr run --runtime io.containerd.runc.v2 --runc-binary "$SC_RUNTIME" "$@"; }

run_shows_output_and_exit_status() {
    status_of run --rm "$image" output sh -c 'echo out; echo err >&2; exit 7'
    same "exit status" 7 "$status"
    same "output" "err out" "$(sort <<<"$output" | paste -sd' ')"
}

run_has_a_terminal() {
    status_of script -qec "ctr run --runtime io.containerd.runc.v2 --runc-binary $SC_RUNTIME --rm --tty $image terminal sh -c 'tty; exit 5'" /dev/null
    same "exit status" 5 "$status"
    contains "tty" /dev/pts/0 "$output"
}

missing_program_is_named() {
    status_of run --rm "$image" missing /no/such/program
    same "exit status" 1 "$status"
    contains "message" /no/such/program "$output"
}

limits_are_in_the_kernel() {
    local cgroup
    run -d --memory-limit 67108864 --cpus 0.5 "$image" limits sleep 1000
    cgroup=/sys/fs/cgroup$(cut -d: -f3 "/proc/$(pid_of limits)/cgroup")
    same memory.max 67108864 "$(<"$cgroup/memory.max")"
    same cpu.max "50000 100000" "$(<"$cgroup/cpu.max")"
    end limits
}

systemd_has_the_scope_and_its_limits() {
    run -d --runc-systemd-cgroup --cgroup system.slice:ctr:scoped --memory-limit 67108864 "$image" scoped sleep 1000
    same "the process's cgroup" /system.slice/ctr-scoped.scope "$(cut -d: -f3 "/proc/$(pid_of scoped)/cgroup")"
    same MemoryMax 67108864 "$(systemctl show --value -p MemoryMax ctr-scoped.scope)"
    same memory.max 67108864 "$(</sys/fs/cgroup/system.slice/ctr-scoped.scope/memory.max)"
    end scoped
    same LoadState not-found "$(systemctl show --value -p LoadState ctr-scoped.scope)"
}

detached_task_is_killed_and_deleted() {
    run -d "$image" detached sh -c 'trap "exit 3" TERM; while :; do sleep 0.1; done'
    eventually task_is detached RUNNING
    ctr task kill --signal TERM detached
    eventually task_is detached STOPPED
    status_of ctr task delete detached
    contains "what delete says" "exit code 3" "$output"
    ctr container delete detached
    same "tasks" "" "$(ctr task list -q)"
    same "containers" "" "$(ctr container list -q)"
}

checkpointed_container_goes_on() {
    command -v criu >/dev/null || skip "no program criu"
    run -d "$image" saved sh -c 'i=0; while :; do i=$((i+1)); echo $i >/count; sleep 0.2; done'
    sleep 3
    ctr container checkpoint --task saved localhost/saved:latest
    end saved
    ctr container restore --live saved localhost/saved:latest
    same "tasks" saved "$(ctr task list -q)"
    end saved
    ctr image rm localhost/saved:latest
}

nothing_is_left() {
    local id
    for id in $(ctr container list -q); do end "$id"; done # what a failed check has not come to
    nothing_left '*/default/*' /run/containerd/runc/default
}

task_is() { ctr task list | grep -q "^$1 .*$2"; }
pid_of() { ctr task list | awk -v id="$1" '$1 == id { print $2 }'; }
end() {
    ctr task delete --force "$1" || true # its status is the task's
    ctr container delete "$1"
}

check run_shows_output_and_exit_status
check run_has_a_terminal
check missing_program_is_named
check limits_are_in_the_kernel
check systemd_has_the_scope_and_its_limits
check detached_task_is_killed_and_deleted
check checkpointed_container_goes_on
check nothing_is_left
finish
