//! Judgement, on both sides of each threshold.

use super::{
    Level, Report, gather,
    holes::{self, HOLES, RELEASE, Version},
    host::{Disk, Engine, Entry, Host, Image},
    judge::judge,
};
use crate::sandbox::Trouble;

/// A host on which nothing is to be done.
fn good() -> Host {
    let entry = |path: &str, mode, uid| Some(Entry { path: path.to_owned(), mode, uid });
    Host {
        engine: Ok(Engine {
            version: "29.4.0".to_owned(),
            filter: Some("0.1.0".to_owned()),
            containerd: Some("2.2.1".to_owned()),
            runc: Some("1.3.4".to_owned()),
            cgroup: Some("2".to_owned()),
            security: ["name=apparmor", "name=seccomp,profile=builtin", "name=cgroupns", "name=userns"]
                .map(str::to_owned)
                .into(),
            unlimited: Vec::new(),
        }),
        socket: entry("/run/quickcmd-docker/docker.sock", 0o660, 990),
        docker_ports: Vec::new(),
        kernel: "6.12.57".to_owned(),
        vulnerabilities: vec![
            ("meltdown".to_owned(), "Not affected".to_owned()),
            ("spectre_v2".to_owned(), "Mitigation: Enhanced / Automatic IBRS".to_owned()),
        ],
        smt: Some(false),
        ksm: Some(false),
        swap: Some(0),
        core_pattern: Some("core".to_owned()),
        ptrace_scope: Some(1),
        kptr_restrict: Some(1),
        dmesg_restrict: Some(1),
        unprivileged_bpf_disabled: Some(2),
        clock_synchronised: Some(true),
        disk: Some(Disk {
            path: "/var/lib/quickcmd".to_owned(),
            free: 64 << 30,
            watermark: 256 << 20,
            kind: 0xef53,
        }),
        nofile: 65_536,
        nofile_needed: 2319,
        config: entry("/etc/quickcmd/agent-config.yaml", 0o100_640, 0),
        data: entry("/var/lib/quickcmd", 0o040_750, 991),
        user: ("quickcmd".to_owned(), Some(991)),
        image: Image { name: "alpine:latest".to_owned(), present: Some(true), pulled: true },
    }
}

fn away() -> Trouble {
    Trouble {
        what: "there is no Docker socket at docker_host unix:///x".to_owned(),
        change: "start Docker".to_owned(),
    }
}

fn report(host: &Host) -> Report {
    Report { findings: judge(host) }
}

/// The worst that is said of one thing.
fn level(host: &Host, check: &str) -> Level {
    let levels =
        judge(host).into_iter().filter(|finding| finding.check == check).map(|finding| finding.level);
    levels.max().unwrap_or_else(|| panic!("nothing is said of {check}"))
}

#[test]
fn a_host_without_fault() {
    let report = report(&good());
    assert_eq!(report.count(Level::Ok), report.findings.len(), "{}", report.text());
    assert!(report.findings.iter().all(|finding| finding.change.is_empty()));
    insta::assert_snapshot!(report.text());
}

#[test]
fn a_host_with_all_faults() {
    let engine = Engine {
        version: "20.10.8".to_owned(),
        filter: None,
        containerd: Some("1.4.2".to_owned()),
        runc: Some("1.1.5".to_owned()),
        cgroup: Some("1".to_owned()),
        security: Vec::new(),
        unlimited: vec!["memory", "swap"],
    };
    let open = |entry: Option<Entry>| entry.map(|entry| Entry { mode: entry.mode | 0o777, ..entry });
    let host = Host {
        engine: Ok(engine),
        socket: Some(Entry { path: "/var/run/docker.sock".to_owned(), mode: 0o140_666, uid: 0 }),
        docker_ports: vec![2375],
        kernel: "5.10.100".to_owned(),
        vulnerabilities: vec![
            ("mds".to_owned(), "Vulnerable; SMT vulnerable".to_owned()),
            ("srbds".to_owned(), "Vulnerable: No microcode".to_owned()),
        ],
        smt: Some(true),
        ksm: Some(true),
        swap: Some(2 << 30),
        core_pattern: Some("|/usr/share/apport/apport %p".to_owned()),
        ptrace_scope: Some(0),
        kptr_restrict: Some(0),
        dmesg_restrict: Some(0),
        unprivileged_bpf_disabled: Some(0),
        clock_synchronised: Some(false),
        disk: good().disk.map(|disk| Disk { free: 100 << 20, kind: 0x6969, ..disk }),
        nofile: 256,
        nofile_needed: 2319,
        config: open(good().config),
        data: open(good().data),
        user: ("root".to_owned(), Some(0)),
        image: Image { name: "alpine:latest".to_owned(), present: Some(false), pulled: false },
    };
    let report = report(&host);
    assert_eq!(report.count(Level::Ok), 0, "{}", report.text());
    insta::assert_snapshot!(report.text());
    let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
    assert_eq!(json["dangers"], report.count(Level::Danger));
    assert_eq!(json["findings"].as_array().unwrap().len(), report.findings.len());
    assert_eq!(json["findings"][0]["level"], "warning");
}

#[test]
fn a_host_of_which_nothing_is_known() {
    let host = Host {
        engine: Err(away()),
        socket: None,
        docker_ports: Vec::new(),
        kernel: String::new(),
        vulnerabilities: Vec::new(),
        smt: None,
        ksm: None,
        swap: None,
        core_pattern: None,
        ptrace_scope: None,
        kptr_restrict: None,
        dmesg_restrict: None,
        unprivileged_bpf_disabled: None,
        clock_synchronised: None,
        disk: None,
        config: None,
        data: None,
        user: ("quickcmd".to_owned(), None),
        image: Image { name: "alpine:latest".to_owned(), present: None, pulled: true },
        ..good()
    };
    insta::assert_snapshot!(report(&host).text());
}

/// Each threshold: what is just well, and what is just not.
#[test]
fn both_sides_of_each_threshold() {
    use Level::{Danger, Ok, Warning};
    type Change = Box<dyn Fn(&mut Host)>;
    fn engine(change: impl Fn(&mut Engine) + 'static) -> Change {
        Box::new(move |host| host.engine.as_mut().map(&change).unwrap_or_default())
    }
    fn on(change: impl Fn(&mut Host) + 'static) -> Change {
        Box::new(change)
    }
    fn docker(version: &'static str) -> Change {
        engine(move |engine| engine.version = version.to_owned())
    }
    fn runc(version: &'static str) -> Change {
        engine(move |engine| engine.runc = Some(version.to_owned()))
    }
    fn containerd(version: &'static str) -> Change {
        engine(move |engine| engine.containerd = Some(version.to_owned()))
    }
    fn kernel(version: &'static str) -> Change {
        on(move |host| host.kernel = version.to_owned())
    }
    fn security(options: &'static [&'static str]) -> Change {
        engine(move |engine| engine.security = options.iter().map(|option| (*option).to_owned()).collect())
    }
    fn disk(change: impl Fn(&mut Disk) + 'static) -> Change {
        on(move |host| host.disk.as_mut().map(&change).unwrap_or_default())
    }
    fn mode(of: fn(&mut Host) -> &mut Option<Entry>, mode: u32, uid: u32) -> Change {
        on(move |host| {
            if let Some(entry) = of(host) {
                entry.mode = mode;
                entry.uid = uid;
            }
        })
    }
    fn cpu(name: &'static str, said: &'static str) -> Change {
        on(move |host| host.vulnerabilities.push((name.to_owned(), said.to_owned())))
    }
    fn image(present: bool, pulled: bool) -> Change {
        on(move |host| (host.image.present, host.image.pulled) = (Some(present), pulled))
    }
    const MIB: u64 = 1 << 20;
    let rows: Vec<(&str, &str, Change, Level)> = vec![
        ("docker", "below the floor", docker("20.9.99"), Danger),
        ("docker", "on the floor", docker("20.10.24"), Warning),
        ("docker", "no more mended", docker("24.0.9"), Warning),
        ("docker", "just before", docker("29.3.0"), Warning),
        ("docker", "just after", docker("29.3.1"), Ok),
        ("docker", "no version", docker("dev"), Warning),
        ("containerd", "just before", containerd("1.7.28"), Warning),
        ("containerd", "just after", containerd("1.7.29"), Ok),
        ("containerd", "a pre-release", containerd("2.2.0-rc.1"), Warning),
        ("containerd", "its release", containerd("2.2.0"), Ok),
        ("containerd", "not named", engine(|engine| engine.containerd = None), Warning),
        ("runc", "2021", runc("1.0.0-rc94"), Danger),
        ("runc", "2024, before", runc("1.1.11"), Danger),
        ("runc", "2024, after, but not 2025", runc("1.1.12"), Danger),
        ("runc", "2025, before", runc("1.2.7"), Danger),
        ("runc", "2025, after", runc("1.2.8"), Ok),
        ("runc", "2025, before, next branch", runc("1.3.2"), Danger),
        ("runc", "2025, after, next branch", runc("1.3.3"), Ok),
        ("runc", "2025, before, a pre-release", runc("1.4.0-rc.2"), Danger),
        ("runc", "2025, after, a pre-release", runc("1.4.0-rc.3"), Ok),
        ("runc", "a later branch", runc("1.4.0"), Ok),
        ("runc", "of a distribution", runc("1.1.5+ds1"), Warning),
        ("runc", "of a distribution, new", runc("1.3.3+ds1"), Ok),
        ("kernel", "below the floor", kernel("5.3.18"), Danger),
        ("kernel", "on the floor", kernel("5.4.0"), Warning),
        ("kernel", "Dirty Pipe, before", kernel("5.10.101"), Danger),
        ("kernel", "Dirty Pipe, after", kernel("5.10.102"), Ok),
        ("kernel", "Dirty Pipe, a branch without a fix", kernel("5.11.0"), Danger),
        ("kernel", "Dirty Pipe, of a distribution", kernel("5.15.0-105-generic"), Warning),
        ("cgroup", "version 1", engine(|engine| engine.cgroup = Some("1".to_owned())), Warning),
        ("limits", "one is missing", engine(|engine| engine.unlimited = vec!["processes"]), Danger),
        ("seccomp", "is missing", security(&["name=apparmor", "name=userns"]), Danger),
        ("seccomp", "is named only in another's text", security(&["name=x,profile=name=seccomp2"]), Danger),
        ("userns", "is missing", security(&["name=seccomp,profile=default"]), Warning),
        ("userns", "rootless", security(&["name=rootless"]), Ok),
        ("lsm", "is missing", security(&["name=seccomp,profile=default"]), Warning),
        ("lsm", "SELinux", security(&["name=selinux"]), Ok),
        ("socket", "the filter's", mode(|host| &mut host.socket, 0o660, 990), Ok),
        ("socket", "the filter's, as root", mode(|host| &mut host.socket, 0o660, 0), Warning),
        ("socket", "the filter's, as the agent's user", mode(|host| &mut host.socket, 0o660, 991), Warning),
        ("socket", "everybody's filter", mode(|host| &mut host.socket, 0o662, 990), Danger),
        ("socket", "Docker's own", engine(|engine| engine.filter = None), Warning),
        (
            "socket",
            "everybody's Docker",
            on(|host| {
                host.engine = host.engine.clone().map(|engine| Engine { filter: None, ..engine });
                host.socket = host.socket.clone().map(|socket| Entry { mode: 0o666, ..socket });
            }),
            Danger,
        ),
        ("socket", "nobody's", on(|host| host.engine = Err(away())), Warning),
        (
            "socket",
            "nobody's, and open",
            on(|host| {
                host.engine = Err(away());
                host.socket = host.socket.clone().map(|socket| Entry { mode: 0o666, ..socket });
            }),
            Danger,
        ),
        ("docker-tcp", "with TLS", on(|host| host.docker_ports = vec![2376]), Warning),
        ("docker-tcp", "without", on(|host| host.docker_ports = vec![2375, 2376]), Danger),
        ("cpu", "mitigated", cpu("mds", "Mitigation: Clear CPU buffers; SMT vulnerable"), Ok),
        ("cpu", "reads others", cpu("mds", "Vulnerable"), Danger),
        ("cpu", "no microcode", cpu("mds", "Vulnerable: Clear CPU buffers attempted, no microcode"), Warning),
        ("cpu", "another one", cpu("spec_store_bypass", "Vulnerable"), Warning),
        ("smt", "on", on(|host| host.smt = Some(true)), Warning),
        ("ksm", "on", on(|host| host.ksm = Some(true)), Warning),
        ("ksm", "not there", on(|host| host.ksm = None), Ok),
        ("swap", "some", on(|host| host.swap = Some(1)), Warning),
        ("core", "a path", on(|host| host.core_pattern = Some("/var/core/%p".to_owned())), Ok),
        ("core", "a program", on(|host| host.core_pattern = Some("|/bin/x".to_owned())), Warning),
        ("ptrace", "open", on(|host| host.ptrace_scope = Some(0)), Warning),
        ("kptr", "open", on(|host| host.kptr_restrict = Some(0)), Warning),
        ("dmesg", "open", on(|host| host.dmesg_restrict = Some(0)), Warning),
        ("bpf", "open", on(|host| host.unprivileged_bpf_disabled = Some(0)), Warning),
        ("bpf", "closed", on(|host| host.unprivileged_bpf_disabled = Some(1)), Ok),
        ("clock", "alone", on(|host| host.clock_synchronised = Some(false)), Warning),
        ("disk", "below the watermark", disk(|disk| disk.free = 256 * MIB - 1), Danger),
        ("disk", "on it", disk(|disk| disk.free = 256 * MIB), Warning),
        ("disk", "little", disk(|disk| disk.free = 1024 * MIB - 1), Warning),
        ("disk", "enough", disk(|disk| disk.free = 1024 * MIB), Ok),
        ("data-fs", "NFS", disk(|disk| disk.kind = 0x6969), Danger),
        ("data-fs", "tmpfs", disk(|disk| disk.kind = 0x0102_1994), Warning),
        ("data-fs", "btrfs", disk(|disk| disk.kind = 0x9123_683e), Ok),
        ("nofile", "as many as needed", on(|host| host.nofile = 2319), Ok),
        ("nofile", "one less", on(|host| host.nofile = 2318), Warning),
        ("nofile", "a shell's", on(|host| host.nofile = 1024), Warning),
        ("nofile", "less than that", on(|host| host.nofile = 1023), Danger),
        ("config", "of the agent's user", mode(|host| &mut host.config, 0o600, 991), Ok),
        ("config", "of somebody else", mode(|host| &mut host.config, 0o600, 1000), Danger),
        ("config", "others read", mode(|host| &mut host.config, 0o644, 0), Danger),
        ("config", "the group writes", mode(|host| &mut host.config, 0o660, 0), Danger),
        ("data", "others look", mode(|host| &mut host.data, 0o755, 991), Warning),
        ("data", "the group writes", mode(|host| &mut host.data, 0o770, 991), Danger),
        ("data", "of somebody else", mode(|host| &mut host.data, 0o700, 1000), Danger),
        ("user", "root", on(|host| host.user.1 = Some(0)), Danger),
        ("user", "nobody there", on(|host| host.user.1 = None), Danger),
        ("image", "to be pulled", image(false, true), Warning),
        ("image", "never pulled", image(false, false), Danger),
    ];
    for (check, what, change, expected) in rows {
        let mut host = good();
        change(&mut host);
        assert_eq!(level(&host, check), expected, "{check}, {what}:\n{}", report(&host).text());
    }
}

#[test]
fn versions_are_read_as_far_as_they_go() {
    for (text, expected) in [
        ("1.1.5+ds1", Some(([1, 1, 5], RELEASE, true))),
        ("v1.2.3", Some(([1, 2, 3], RELEASE, false))),
        ("1.0.0-rc95", Some(([1, 0, 0], 95, false))),
        ("1.0.0~rc93+ds1", Some(([1, 0, 0], 93, true))),
        ("1.4.0-rc.2", Some(([1, 4, 0], 2, false))),
        ("2.2.0-beta.1", Some(([2, 2, 0], 0, false))),
        ("19.03.15-ce", Some(([19, 3, 15], RELEASE, false))),
        ("20.10.24+dfsg1", Some(([20, 10, 24], RELEASE, true))),
        ("1.6.20~ds1", Some(([1, 6, 20], RELEASE, true))),
        ("6.1.0-28-amd64", Some(([6, 1, 0], RELEASE, true))),
        ("27.5", Some(([27, 5, 0], RELEASE, false))),
        ("27", Some(([27, 0, 0], RELEASE, false))),
        ("", None),
        ("dev", None),
        ("99999999999.0", None),
    ] {
        let read = Version::parse(text).map(|version| (version.numbers, version.pre, version.patched));
        assert_eq!(read, expected, "{text}");
    }
}

#[test]
fn a_hole_is_known_in_the_versions_that_its_advisory_names() {
    for (product, id, with, without) in [
        ("runc", "CVE-2021-30465", &["0.1.1", "1.0.0-rc93", "1.0.0-rc94"][..], &["1.0.0-rc95", "1.0.0"][..]),
        ("runc", "CVE-2024-21626", &["1.0.0-rc93", "1.0.0", "1.1.11"], &["1.0.0-rc92", "1.1.12", "1.2.0"]),
        ("runc", "CVE-2024-45310", &["1.0.0", "1.1.13", "1.2.0-rc.2"], &["1.1.14", "1.2.0-rc.3", "1.2.0"]),
        ("runc", "CVE-2025-31133", &["0.1.1", "1.2.7", "1.3.2", "1.4.0-rc.2"], &["1.2.8", "1.3.3", "1.4.0"]),
        (
            "runc",
            "CVE-2025-52565",
            &["1.0.0-rc3", "1.2.7", "1.3.0-rc.1"],
            &["1.0.0-rc2", "1.2.8", "1.4.0-rc.3"],
        ),
        ("runc", "CVE-2025-52881", &["1.1.15", "1.2.7", "1.3.2", "1.4.0-rc.2"], &["1.2.9", "1.3.3", "1.4.0"]),
        ("containerd", "CVE-2020-15257", &["1.2.14", "1.3.8", "1.4.2"], &["1.3.9", "1.4.3", "1.5.0"]),
        (
            "containerd",
            "CVE-2024-25621",
            &["1.6.38", "1.7.28", "2.0.6", "2.1.4", "2.2.0-rc.1"],
            &["2.1.5", "2.2.0"],
        ),
        ("Docker", "CVE-2021-41091", &["19.03.15", "20.10.8"], &["20.10.9", "23.0.0"]),
        // The branches 20.10, 24.0 and 26.0 have the fix, and no version that was made of it.
        (
            "Docker",
            "CVE-2024-41110",
            &["20.10.27", "23.0.14", "24.0.9", "25.0.5", "26.0.2", "27.1.0"],
            &["25.0.6", "27.1.1"],
        ),
        ("Docker", "CVE-2026-34040", &["25.0.6", "28.5.2", "29.3.0"], &["29.3.1", "30.0.0"]),
        (
            "kernel",
            "CVE-2022-0847",
            &["5.8.0", "5.10.101", "5.11.0", "5.15.24"],
            &["5.7.0", "5.10.102", "5.17.0"],
        ),
    ] {
        let has = |text: &&str| {
            let version = Version::parse(text).unwrap_or_else(|| panic!("{text}"));
            holes::known(product, version).any(|hole| hole.id == id)
        };
        let wrong: Vec<_> =
            with.iter().filter(|text| !has(text)).chain(without.iter().filter(|text| has(text))).collect();
        assert!(wrong.is_empty(), "{id}: {wrong:?}");
    }
}

/// The path and the owner tell nothing: what answers does.
#[test]
fn the_report_says_whether_docker_or_the_filter_answers() {
    let found = |path: &str, uid, filter: Option<&str>| {
        let mut host = good();
        host.socket = Some(Entry { path: path.to_owned(), mode: 0o140_660, uid });
        host.engine = host.engine.map(|engine| Engine { filter: filter.map(str::to_owned), ..engine });
        let finding = judge(&host).into_iter().find(|finding| finding.check == "socket");
        finding.map(|finding| finding.found).unwrap_or_default()
    };
    for (path, uid) in
        [("/run/quickcmd-docker/docker.sock", 990), ("/var/run/docker.sock", 0), ("/tmp/x", 990)]
    {
        let docker = found(path, uid, None);
        assert!(docker.starts_with(&format!("Docker itself answers on {path}:")), "{docker}");
        let filter = found(path, uid, Some("0.1.0"));
        assert!(filter.starts_with(&format!("the Docker filter 0.1.0 answers on {path},")), "{filter}");
    }
    assert!(found("/x", 0, None).ends_with("is root"));
    // Rootless.
    assert!(found("/x", 1000, None).contains("Docker's own user"));
}

/// docs/hardening.md names what the report has, and nothing else.
#[test]
fn the_fields_of_the_json_and_the_checks_are_documented() {
    let docs = include_str!("../../docs/hardening.md");
    let section = |heading: &str| {
        let (_, rest) = docs.split_once(heading).unwrap_or_else(|| panic!("{heading}"));
        rest.split("\n##").next().unwrap()
    };
    /// What stands in the first column of a section's tables, between backticks.
    fn column(text: &str) -> Vec<String> {
        let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
        let cells = rows.filter_map(|row| row.split(" | ").next().map(|cell| format!("`{cell}")));
        let mut words: Vec<String> = cells
            .flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>())
            .collect();
        words.sort();
        words
    }
    let json: serde_json::Value = serde_json::from_str(&report(&good()).json()).unwrap();
    let mut fields: Vec<String> = json.as_object().unwrap().keys().cloned().collect();
    for finding in json["findings"].as_array().unwrap() {
        let keys = finding.as_object().unwrap().keys();
        fields.extend(keys.map(|key| format!("findings[].{key}")));
    }
    fields.sort();
    fields.dedup();
    assert_eq!(column(section("\n### Preflight as JSON\n")), fields);
    for level in ["ok", "warning", "danger"] {
        assert!(section("\n### Preflight as JSON\n").contains(&format!("`{level}`")), "{level}");
    }

    let mut checks: Vec<String> =
        judge(&good()).into_iter().map(|finding| finding.check.to_owned()).collect();
    checks.sort();
    assert_eq!(column(section("\n## Preflight\n")), checks);
}

/// What a distribution has built may have the fixes of later versions: nothing is claimed of it without saying that.
#[test]
fn of_a_distributions_version_it_is_said_that_it_may_be_mended() {
    let mut host = good();
    if let Ok(engine) = &mut host.engine {
        engine.version = "20.10.24+dfsg1".to_owned();
        engine.containerd = Some("1.6.20~ds1".to_owned());
        engine.runc = Some("1.3.3+ds1".to_owned());
    }
    let text = report(&host).text();
    let said = |part: &str| {
        text.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("{part}: {text}"))
    };
    for hole in ["CVE-2024-41110", "CVE-2024-25621"] {
        assert!(said(hole).contains("unless its distribution has mended it"), "{text}");
    }
    assert!(said("1.3.3+ds1").contains("its distribution's own notices say more"), "{text}");
    assert_eq!(level(&host, "containerd"), Level::Warning);
}

#[test]
fn the_table_of_holes_is_sound() {
    let mut ids: Vec<&str> = HOLES.iter().map(|hole| hole.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), HOLES.len(), "an id stands twice");
    for hole in HOLES {
        assert!(hole.fixed.is_sorted() && !hole.fixed.is_empty(), "{}", hole.id);
        assert!(hole.source.starts_with("https://"), "{}", hole.id);
        assert!(hole.published[..7] <= *holes::AS_OF, "{}", hole.id);
        assert_ne!(hole.level, Level::Ok, "{}", hole.id);
    }
}

#[test]
fn tables_of_the_kernel_are_read() {
    let swaps = "Filename\tType\tSize\tUsed\tPriority\n/dev/sda2 partition 2048 0 -2\n/swap file 1024 0 -3";
    assert_eq!(gather::swap(swaps), 3 << 20);
    assert_eq!(gather::swap("Filename\tType\tSize\tUsed\tPriority"), 0);
    let line = |local: &str, state: &str| {
        format!("   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000")
    };
    let table = |lines: &[String]| format!("  sl  local_address rem_address   st\n{}", lines.join("\n"));
    let four =
        table(&[line("00000000:0947", "0A"), line("0100007F:1F90", "0A"), line("0100007F:0948", "01")]);
    let six = table(&[line("00000000000000000000000000000000:0947", "0A")]);
    assert_eq!(gather::docker_ports(&[four, six]), [2375]);
    assert_eq!(gather::docker_ports(&[table(&[line("0100007F:0948", "0A")])]), [2376]);
    assert!(gather::docker_ports(&[String::new()]).is_empty());
}
