//! The sandbox as a hostile job sees it, from inside.

use crate::bench::Bench;

/// The value of a line `name: value` or `name value`.
fn field<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap_or_else(|| panic!("no {name} in {text}"))
        .trim_start_matches(':')
        .trim()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_job_is_nobody_with_no_powers() {
    let bench = Bench::new().await;
    let run = bench.run("cat /proc/self/status; ulimit -c; ulimit -n").await;
    let status = &run.stdout;
    assert_eq!(field(status, "Uid"), "65534\t65534\t65534\t65534");
    assert_eq!(field(status, "Gid"), "65534\t65534\t65534\t65534");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(status, set), "0000000000000000", "{set}");
    }
    assert_eq!(field(status, "NoNewPrivs"), "1");
    assert_eq!(field(status, "Seccomp:"), "2");
    assert!(status.ends_with("0\n1024\n"), "{status}");
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_system_is_read_only_but_for_two_small_folders() {
    let bench = Bench::new().await;
    let run = bench
        .run(
            "for d in / /etc /dev /proc /sys /.quickcmd /var; do touch $d/x 2>/dev/null && echo wrote $d; done
             echo 1 2>/dev/null >/proc/sys/kernel/core_pattern && echo wrote core_pattern
             echo b 2>/dev/null >/proc/sysrq-trigger && echo wrote sysrq
             grep -E ' (/|/tmp|/work|/.quickcmd|/dev/shm) ' /proc/mounts
             for d in /tmp /work; do dd if=/dev/zero of=$d/big bs=1M count=64 2>/dev/null; wc -c <$d/big; done",
        )
        .await;
    assert!(!run.stdout.contains("wrote"), "{}", run.stdout);
    let options = |at: &str| {
        let line = run.stdout.lines().find(|line| line.contains(&format!(" {at} ")));
        line.unwrap_or_else(|| panic!("no mount at {at}: {}", run.stdout)).to_owned()
    };
    assert!(options("/").contains(" ro,"), "{}", options("/"));
    assert!(options("/.quickcmd").contains(" ro,"), "{}", options("/.quickcmd"));
    for at in ["/tmp", "/work"] {
        for option in ["tmpfs", "nosuid", "nodev", "size=8192k"] {
            assert!(options(at).contains(option), "{}", options(at));
        }
    }
    assert!(options("/dev/shm").contains("size=8192k"), "{}", options("/dev/shm"));
    let full = (8 << 20).to_string();
    assert_eq!(run.stdout.lines().filter(|line| *line == full).count(), 2, "{}", run.stdout);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_the_shapes() {
    let bench = Bench::new().await;
    let run = bench
        .run(
            "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null
             cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null
             for i in $(seq 100); do sleep 5 & done; echo survived",
        )
        .await;
    let mut lines = run.stdout.lines();
    assert_eq!(lines.next(), Some((64 << 20).to_string().as_str()), "{run:?}");
    assert_eq!(lines.next(), Some("64"), "{run:?}");
    assert!(run.stderr.contains("fork"), "the 64th process is refused: {run:?}");
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_no_network_no_docker_and_no_way_to_the_supervisor() {
    let bench = Bench::new().await;
    let run = bench
        .run(
            "ls /sys/class/net
             for f in /var/run/docker.sock /run/docker.sock /.quickcmd/socket; do test -e $f && echo there $f; done
             for f in mem environ; do cat /proc/1/$f 2>/dev/null | wc -c; done
             for f in fd root cwd; do ls /proc/1/$f/ 2>/dev/null && echo looked $f; done
             ls /.quickcmd
             kill -9 1; kill -STOP 1; kill -9 -1; echo alive",
        )
        .await;
    let net: Vec<_> = run.stdout.lines().take_while(|line| line.parse::<u32>().is_err()).collect();
    assert!(net.iter().all(|name| ["lo", "tunl0", "sit0", "ip6tnl0"].contains(name)), "{net:?}");
    assert!(!run.stdout.contains("there") && !run.stdout.contains("looked"), "{}", run.stdout);
    assert_eq!(run.stdout.lines().filter(|line| *line == "0").count(), 2, "{}", run.stdout);
    let report = run.report.expect("the supervisor outlives all that");
    assert_eq!(report.stopped, None);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_calls_are_refused() {
    let bench = Bench::new().await;
    let run = bench
        .run(
            "try() { \"$@\" >/dev/null 2>&1 && echo did $*; }
             mkdir -p /tmp/m
             try mount -t tmpfs none /tmp/m
             try unshare -U true
             try unshare -m true
             try mknod /tmp/null c 1 3
             try chroot / true
             try hostname x
             date -s 2001-01-01 2>&1 | grep -q 'not permitted' || echo set the clock
             try dmesg
             try swapoff -a
             echo tried",
        )
        .await;
    assert_eq!(run.stdout, "tried\n", "{run:?}");
    bench.close().await;
}
