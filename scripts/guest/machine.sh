# shellcheck shell=bash
# The guest as a machine: its place in the cache, its QEMU command line, and the few lines spoken with the
# agent inside. Sourced by guest-build, which makes and saves a machine, and guest-run, which uses one.
#
#   host to guest   "EPOCH BYTES" and a tar of that size, unpacked over /; /run/job/command in it is then run
#   guest to host   "ready" (waits for a job), "started", "exit STATUS"
#
# The caller sets $work, a private directory, and calls stop_machine when it leaves.
# shellcheck disable=SC2034,SC2154 # variables that the caller gives and takes

MEMORY=2048 # MiB; a saved machine fits only the memory it was saved with

# guest_directory: where the guest made by these very scripts for this very QEMU is kept.
guest_directory() {
    local here=$1 hash
    hash=$({ qemu-system-x86_64 --version; cd "$here" && find guest-build guest -type f | LC_ALL=C sort | xargs sha256sum; } |
        sha256sum | cut -c1-16)
    echo "${SC_GUEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/simplecontainer}/guest-$hash"
}

# start_machine GUEST DISK_MODE RAM [QEMU_OPTION...]: starts QEMU as $qemu; what the guest prints goes to stdout.
# The devices are the same for every use: a machine can only be restored into what it was saved from.
start_machine() {
    local guest=$1 disk_mode=$2 ram=$3
    shift 3
    mkfifo "$work"/{output,control.in,control.out,monitor.in,monitor.out}
    # Read and write, so that neither opening waits for QEMU nor its death ends the file.
    exec {events}<>"$work/control.out" {monitor}<>"$work/monitor.in" {answers}<>"$work/monitor.out"
    # QEMU makes its outputs non-blocking: it must not do that to a stdout shared with make and others.
    cat "$work/output" &
    output=$!
    # One vCPU: QEMU 7.2 with two runs stale code after the kernel patches itself, and the guest panics.
    # TMPDIR holds the throw-away part of the disk. setpriv: no machine outlives its script, however that ends.
    # setsid: Ctrl-C is for the script alone, which then ends the machine.
    TMPDIR=$work setpriv --pdeathsig KILL setsid qemu-system-x86_64 \
        -accel tcg -smp 1 -cpu max,la57=off,smap=off,smep=off \
        -m "$MEMORY" -object "$ram,id=ram,size=${MEMORY}M" -machine memory-backend=ram \
        -nodefaults -no-user-config -no-reboot -display none \
        -kernel "$guest/vmlinuz" -initrd "$guest/initramfs" \
        -append "console=ttyS0 quiet panic=-1 mitigations=off audit=0 lsm=landlock random.trust_cpu=on systemd.show_status=0" \
        -drive "if=none,id=disk,format=raw,file=$guest/disk,cache=unsafe,$disk_mode" -device virtio-blk-pci,drive=disk \
        -device virtio-rng-pci -device vmgenid,guid=auto -serial "file:$work/console" -device virtio-serial-pci \
        -chardev "file,id=output,path=$work/output" -device virtserialport,nr=1,chardev=output \
        -chardev "pipe,id=control,path=$work/control" -device virtserialport,nr=2,chardev=control \
        -chardev "pipe,id=monitor,path=$work/monitor" -mon chardev=monitor,mode=readline \
        "$@" </dev/null >"$work/qemu.log" 2>&1 &
    qemu=$!
}

# send_job DIRECTORY: has the guest unpack DIRECTORY over its / and run /run/job/command.
send_job() {
    tar -c --owner=0 --group=0 -f "$work/job.tar" -C "$1" .
    { echo "$(date +%s.%N) $(stat -c %s "$work/job.tar")" && cat "$work/job.tar"; } >"$work/control.in" &
    sender=$!
}

# await_event NAME SECONDS: waits for the guest to say NAME and leaves the rest of its line in $event.
# Returns 124 when the time is over and 125 when the machine is gone.
await_event() {
    local name=$1 end=$((SECONDS + $2)) line='' piece alive=1
    while ((alive && SECONDS < end)); do
        kill -0 "$qemu" 2>/dev/null || alive=0 # then one last look: it may have spoken before it died
        # A read that runs out of time within a line has taken the line's beginning away.
        read -r -t 1 piece <&"$events" || { line+=$piece && continue; }
        line+=$piece
        if [[ $line == "$name"* ]]; then
            event=${line#"$name"}
            return 0
        fi
        line=
    done
    ((alive)) && return 124
    return 125
}

# stop_machine: ends QEMU, whose machine holds nothing to keep, and lets what it has printed reach stdout.
stop_machine() {
    [[ -n ${qemu:-} ]] || return 0
    kill -KILL "$qemu" ${sender:+"$sender"} 2>/dev/null || true
    wait "$qemu" ${sender:+"$sender"} 2>/dev/null || true
    # Should QEMU never have opened it, the reader of the output still waits for somebody to.
    { : <>"$work/output"; } 2>/dev/null
    wait "$output" 2>/dev/null || true
    exec {events}>&- {monitor}>&- {answers}>&-
    rm -f "$work"/{output,control.in,control.out,monitor.in,monitor.out}
    qemu='' sender=''
}

explain_death() {
    echo "--- the last lines of QEMU and of the guest's console"
    tail -n 5 "$work/qemu.log"
    tail -n 30 "$work/console" | tr -d '\r'
}
