#!/bin/bash
# Docker runs containers with $SC_RUNTIME, with systemd's cgroups (its own choice), with its own, and in a user namespace.
set -euo pipefail
# shellcheck source=integration/guest/checks
. "$(dirname "$0")/checks"

# What a user sets up once; `daemon KEY:VALUE...` adds to it, as JSON.
daemon() {
    mkdir -p /etc/docker
    jq -n --arg path "$SC_RUNTIME" '{runtimes: {sc: {path: $path}}, "default-runtime": "sc", "log-level": "warn"} + {'"$*"'}' \
        >/etc/docker/daemon.json
    systemctl reset-failed docker.service 2>/dev/null || true
    systemctl restart docker.service
    docker image inspect "$image" >/dev/null 2>&1 || podman save --quiet --format docker-archive "$image" | docker load
}
# Any check may be the first one, where a filter has picked it.
docker() {
    [[ -e /etc/docker/daemon.json ]] || daemon >&2
    command docker "$@"
}
# Its bridge costs a second or two here: the checks of networks have it.
run() { docker run --network none "$@"; }
in_image() { run --rm "$@"; }
exists() { docker container inspect "$1"; }
of() { docker inspect -f "{{$2}}" "$1"; }
cgroup_of() { echo "/sys/fs/cgroup$(cut -d: -f3 "/proc/$(of "$1" .State.Pid)/cgroup")"; }
end() { docker rm --force "$@"; }

docker_names_the_runtime() {
    daemon
    same "the default runtime" sc "$(docker info -f '{{.DefaultRuntime}}')"
    same "the cgroups' manager" systemd "$(docker info -f '{{.CgroupDriver}}')"
}

run_shows_output_and_exit_status() {
    status_of in_image "$image" sh -c 'echo out; echo err >&2; exit 7'
    same "exit status" 7 "$status"
    same "output" "err out" "$(sort <<<"$output" | paste -sd' ')"
}

run_has_a_terminal() {
    docker version
    status_of script -qec "docker run --rm -it --network none $image sh -c 'tty; stty size; exit 5'" /dev/null </dev/null
    same "exit status" 5 "$status"
    contains "tty" /dev/pts/0 "$output"
}

one_more_process_runs_as_asked() {
    run -d --name more "$image" sleep 1000
    same "what it says" $'1000 50 /etc sc' "$(docker exec -u 1000:50 -w /etc -e NAME=sc more sh -c 'echo $(id -u) $(id -g) $PWD $NAME')"
    status_of docker exec more sh -c 'exit 9'
    same "exit status" 9 "$status"
    status_of docker exec more /no/such/program
    same "exit status of a missing program" 126 "$status" # docker's own choice; so with runc
    status_of script -qec "docker exec -it more tty" /dev/null </dev/null
    contains "tty" /dev/pts/ "$output"
    contains "processes" "sleep 1000" "$(docker top more)"
    docker pause more
    same "status" paused "$(of more .State.Status)"
    status_of docker exec more true
    contains "of a paused one" "paused" "$output"
    docker unpause more
    docker exec more true
    end more
}

limits_are_in_the_kernel_and_change() {
    local cgroup
    run -d --name limits "${limits[@]}" --ulimit nofile=99:100 "$image" sleep 1000
    cgroup=$(cgroup_of limits)
    contains "its cgroup" "/system.slice/docker-$(of limits .Id).scope" "$cgroup"
    has_limits "$cgroup"
    same "open files" 99 "$(docker exec limits sh -c 'ulimit -n')"
    same MemoryMax 67108864 "$(systemctl show --value -p MemoryMax "${cgroup##*/}")"
    docker update --memory 128m --memory-swap 128m --pids-limit 44 --cpus 1 limits
    same "memory.max after update" 134217728 "$(<"$cgroup/memory.max")"
    same "pids.max after update" 44 "$(<"$cgroup/pids.max")"
    same "cpu.max after update" "100000 100000" "$(<"$cgroup/cpu.max")"
    contains "docker stats" " / 128MiB" "$(docker stats --no-stream limits)"
    end limits
    [[ ! -e $cgroup ]] || same "the cgroup" gone "$cgroup"
}

too_much_memory_is_killed_and_told() {
    status_of run --name oom --memory 16m --memory-swap 16m "$image" tail /dev/zero
    same "exit status" 137 "$status"
    same OOMKilled true "$(of oom .State.OOMKilled)"
    end oom
}

isolation_is_as_docker_asks() {
    same "sets with only net_bind_service" $'CapPrm:\t0000000000000400\nNoNewPrivs:\t1\nSeccomp:\t2' \
        "$(in_image --cap-drop all --cap-add net_bind_service --security-opt no-new-privileges "$image" \
            grep -E '^(CapPrm|NoNewPrivs|Seccomp):' /proc/self/status)"
    same "without a profile" $'Seccomp:\t0' "$(in_image --security-opt seccomp=unconfined "$image" grep Seccomp: /proc/self/status)"
    same "groups" "1001 7" "$(in_image --user 1000:1001 --group-add 7 "$image" id -G)"
    status_of in_image --read-only "$image" touch /refused
    same "output" 'touch: /refused: Read-only file system' "$output"
    contains "a privileged one" $'CapEff:\t000001ffffffffff' "$(in_image --privileged "$image" grep CapEff /proc/self/status)"
}

mounts_are_made() {
    mkdir -p /root/volume
    echo kept >/root/volume/file
    same "a volume, and tmpfs with the mode of what they cover" $'kept\n755\n700' \
        "$(in_image -v /root/volume:/volume:ro --tmpfs /etc --tmpfs /root:mode=700 "$image" \
            sh -c 'cat /volume/file; stat -c %a /etc /root')"
    same "a named volume" kept "$(
        in_image -v named:/data "$image" sh -c 'echo kept >/data/file'
        in_image -v named:/data "$image" cat /data/file
    )"
    docker volume rm named
    same "a device and a sysctl" $'a e5\n80' "$(in_image --device /dev/fuse --sysctl net.ipv4.ip_unprivileged_port_start=80 "$image" \
        sh -c 'stat -c "%t %T" /dev/fuse; cat /proc/sys/net/ipv4/ip_unprivileged_port_start')"
}

init_health_and_restart_work() {
    run -d --init --name healthy --health-cmd 'test -e /ok' --health-interval 1s "$image" sh -c 'touch /ok; sleep 1000'
    contains "process 1" init "$(docker exec healthy cat /proc/1/comm)"
    eventually is healthy .State.Health.Status healthy
    end healthy
    run -d --name often --restart on-failure:2 "$image" sh -c 'exit 4'
    eventually is often .RestartCount 2
    eventually is often .State.Status exited
    end often
}

networks_and_published_ports_work() {
    docker network create net
    docker run -d --name web --network net -p 8080:80 "$image" \
        sh -c 'mkdir /www && echo served >/www/index.html && exec httpd -f -p 80 -h /www'
    same "by its name" served "$(docker run --rm --network net "$image" sh -c 'until wget -qO- http://web/; do sleep 0.2; done')"
    same "from the host" served "$(busybox wget -qO- http://127.0.0.1:8080/)"
    same "in its network namespace" served "$(docker run --rm --network container:web "$image" wget -qO- http://127.0.0.1/)"
    end web
    docker network rm net
}

cgroupfs_runs_too() {
    daemon '"exec-opts": ["native.cgroupdriver=cgroupfs"]'
    run -d --name plain --memory 64m "$image" sleep 1000
    contains "its cgroup" "/docker/$(of plain .Id)" "$(cgroup_of plain)"
    same memory.max 67108864 "$(<"$(cgroup_of plain)/memory.max")"
    end plain
}

users_are_remapped() {
    daemon '"userns-remap": "tester"'
    run -d --name mapped --memory 64m --tmpfs /run "$image" sleep 1000
    contains "its ids" "0     100000      65536" "$(docker exec mapped cat /proc/self/uid_map)"
    same "its owner on the host" 100000 "$(stat -c %u "/proc/$(of mapped .State.Pid)")"
    same memory.max 67108864 "$(<"$(cgroup_of mapped)/memory.max")"
    status_of docker exec mapped sh -c 'id -u; mknod /dev/sda b 8 0'
    contains "a device" "Operation not permitted" "$output"
    end mapped
}

nothing_is_left() {
    docker ps -aq | while read -r container; do end "$container"; done
    systemctl stop docker.service docker.socket
    nothing_left "*/docker-*.scope" /run/docker/runtime-runc/moby
}

is() { [[ $(of "$1" "$2") == "$3" ]]; }

check docker_names_the_runtime
check run_shows_output_and_exit_status
check run_passes_stdin_on
check run_has_a_terminal
check missing_program_is_127_and_a_directory_126
check detached_container_stops_and_is_removed
check killed_container_can_start_again
check one_more_process_runs_as_asked
check limits_are_in_the_kernel_and_change
check too_much_memory_is_killed_and_told
check isolation_is_as_docker_asks
check mounts_are_made
check init_health_and_restart_work
check networks_and_published_ports_work
check cgroupfs_runs_too
check users_are_remapped
check nothing_is_left
# Docker's own network stays when it ends, and pasta stumbles over a bridge that is down.
ip link delete docker0 2>/dev/null || true
nft flush ruleset
finish
