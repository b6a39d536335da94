//! The kernel's doors: system calls, `/proc`, `/sys`.

use serde_json::json;

use crate::{
    field::{Attempt, denied, quick},
    harness::{payload, sign},
};

pub fn calls() -> Vec<Attempt> {
    vec![
        quick("system calls", |field| async move {
            let result = field.hostile("/tmp/hostile calls", json!({})).await;
            denied(&result);
            let tried =
                result["stdout"].as_str().unwrap().trim().rsplit(' ').next().unwrap().parse::<u32>().unwrap();
            assert!(tried > 60, "{result}");
        }),
        quick("32-bit system calls", |field| async move {
            let result =
                field.hostile("/tmp/hostile compat; echo ended with $?; echo tried", json!({})).await;
            denied(&result);
        }),
        quick("the shell's own tools", |field| async move {
            let command = "try() { \"$@\" >/dev/null 2>&1 && echo DID $*; }; mkdir /tmp/m; try mount -t tmpfs none /tmp/m; \
                           try unshare -U true; try unshare -m true; try mknod /tmp/null c 1 3; try chroot / true; \
                           try hostname x; try dmesg; try swapoff -a; try nsenter -t 1 -m true; \
                           echo tried";
            denied(&field.sh(command).await);
        }),
    ]
}

pub fn gain() -> Vec<Attempt> {
    vec![
        quick("set-uid", |field| async move {
            let command = "cp /bin/busybox /tmp/busybox && chmod 6755 /tmp/busybox; \
                           [ $(/tmp/busybox id -u) = 65532 ] && [ $(/tmp/busybox id -g) = 65532 ] || echo DID; \
                           su -c id root </dev/null 2>/dev/null && echo DID su; \
                           grep -q 'CapEff:.0000000000000000' /proc/self/status || echo DID caps; \
                           grep -q 'NoNewPrivs:.1' /proc/self/status || echo DID privs; echo tried";
            denied(&field.sh(command).await);
        }),
        quick("file capabilities, other people's files", |field| async move {
            denied(&field.hostile("/tmp/hostile gain", json!({})).await);
        }),
        quick("a set-uid file brought in", |field| async move {
            let file = json!({"path": "/tmp/x", "content": "", "mode": "4755"});
            let body = sign(&payload("true", json!({"sandbox": {"files": [file]}})).to_string());
            let (status, answer) = field.agent.post(body).await;
            assert_eq!((status, &answer["field"]), (400, &json!("sandbox.files.0.mode")), "{answer}");
        }),
    ]
}

pub fn proc() -> Vec<Attempt> {
    vec![
        quick("writing", |field| async move {
            let command = "for f in /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sys/vm/panic_on_oom \
                           /proc/sys/kernel/hostname /proc/sysrq-trigger /proc/irq/0/smp_affinity /proc/1/oom_score_adj \
                           /proc/1/comm /proc/acpi/wakeup /sys/kernel/uevent_helper /sys/power/state \
                           /sys/fs/cgroup/memory/release_agent /sys/fs/cgroup/release_agent \
                           /sys/fs/cgroup/*/notify_on_release /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs \
                           /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max \
                           /sys/fs/cgroup/*/pids.max /sys/fs/cgroup/pids.max; do \
                           (echo 1 >$f) 2>/dev/null && echo DID write $f; done; \
                           for d in /sys/fs/cgroup /sys/fs/cgroup/*; do \
                           mkdir $d/x 2>/dev/null && echo DID make a cgroup in $d; done; echo tried";
            denied(&field.sh(command).await);
        }),
        quick("reading", |field| async move {
            let command = "for f in /proc/kcore /proc/keys /proc/kmsg /proc/timer_list /proc/1/mem /proc/1/environ \
                           /proc/1/maps /proc/1/syscall /proc/1/stack /proc/1/auxv /dev/mem /dev/kmsg /dev/sda /dev/vda; do \
                           [ $(head -c 64 $f 2>/dev/null | wc -c) -gt 0 ] && echo DID read $f; done; \
                           for d in /proc/1/fd /proc/1/fdinfo /proc/1/root /proc/1/cwd /proc/1/map_files /proc/acpi \
                           /proc/scsi /sys/firmware /sys/kernel/debug /sys/kernel/tracing; do \
                           [ -n \"$(ls $d/ 2>/dev/null)\" ] && echo DID list $d; done; \
                           ls /dev | grep -vxE 'console|core|fd|full|mqueue|null|ptmx|pts|random|shm|stderr|stdin|stdout|tty|urandom|zero' \
                           | sed 's/^/DID find a device /'; \
                           readlink /proc/1/exe 2>/dev/null && echo DID readlink; echo tried";
            denied(&field.sh(command).await);
        }),
        quick("other processes", |field| async move {
            let command = "for p in /proc/[0-9]*; do case $(cat $p/cmdline 2>/dev/null | tr '\\0' ' ') in \
                           *quickcmd-ag[e]nt*|*docker[d]*|*container[d]*) echo DID see $p;; esac; done; echo tried";
            denied(&field.sh(command).await);
        }),
    ]
}

pub fn itself() -> Vec<Attempt> {
    vec![
        quick("programs that run", |field| async move {
            let command = "for f in /proc/self/exe /proc/1/exe /.quickcmd/init /bin/busybox; do \
                           [ -e $f -o -L $f ] || continue; \
                           (echo x >>$f) 2>/dev/null && echo DID write $f; rm -f $f 2>/dev/null && echo DID remove $f; \
                           (chmod 777 $f) 2>/dev/null && echo DID change $f; done; echo tried";
            denied(&field.sh(command).await);
        }),
        quick("start in a descriptor", |field| async move {
            for workdir in
                ["/proc/self/fd/7", "/proc/1/root", "/sys", "/dev/fd/3", "/.quickcmd", "/tmp/../proc"]
            {
                let body = sign(&payload("true", json!({"sandbox": {"workdir": workdir}})).to_string());
                let (status, answer) = field.agent.post(body).await;
                assert_eq!(
                    (status, &answer["field"]),
                    (400, &json!("sandbox.workdir")),
                    "{workdir}: {answer}"
                );
            }
        }),
    ]
}
