//! What is not a job's: the host's secrets and networks, Docker, and what its own words become.

use std::{net::TcpStream, time::Duration};

use serde_json::json;

use crate::{
    field::{Attempt, denied, quick},
    harness::{SECRET, free_port, payload, sign},
};

pub fn secrets() -> Vec<Attempt> {
    vec![
        quick("sockets, channel, folders", |field| async move {
            let command = "for f in /var/run/docker.sock /run/docker.sock /run/containerd/containerd.sock /.quickcmd/socket \
                           /etc/quickcmd /var/lib/quickcmd /host /rootfs; do [ -e $f ] && echo DID find $f; done; \
                           find / -xdev -type s 2>/dev/null | sed 's/^/DID find a socket /'; \
                           find / -type s -not -path '/proc/*' 2>/dev/null | sed 's/^/DID find a socket /'; \
                           awk '$4 == \"00010000\"' /proc/net/unix | sed 's/^/DID see who listens /'; \
                           ls -A /.quickcmd | grep -vx init | sed 's/^/DID find /'; \
                           grep ' /.quickcmd ' /proc/mounts | grep -q ' ro,' || echo DID find it writable; echo tried";
            denied(&field.sh(command).await);
        }),
        quick("the agent's secret", |field| async move {
            // In two parts, or the job's own command line would be found.
            let (one, two) = SECRET.split_at(20);
            let command = format!(
                "s={one}; s=$s{two}; for p in /proc/[0-9]*; do for f in environ cmdline; do \
                 if grep -q $s $p/$f 2>/dev/null; then echo DID find it in $p/$f; fi; done; done; \
                 env | sed 's/^/variable /; s/=.*//'; ls -l /proc/self/fd; echo tried"
            );
            let result = field.sh(&command).await;
            denied(&result);
            let stdout = result["stdout"].as_str().unwrap();
            let names = stdout.lines().filter_map(|line| line.strip_prefix("variable "));
            let usual = ["HOME", "PATH", "PWD", "OLDPWD", "SHLVL", "_", "QUICKCMD_JOB_ID"];
            let strange: Vec<&str> = names.filter(|name| !usual.contains(name)).collect();
            assert!(strange.is_empty(), "{strange:?} in {stdout}");
            // Its three streams, and maybe the folder that `ls` itself looks at.
            assert!((3..=4).contains(&stdout.matches(" -> ").count()), "{stdout}");
        }),
    ]
}

pub fn network() -> Vec<Attempt> {
    vec![
        quick("out", |field| async move {
            let command = "for a in 169.254.169.254 172.17.0.1 127.0.0.1 1.1.1.1 [::1]; do \
                           wget -q -T 2 -O - http://$a/ >/dev/null 2>&1 && echo DID reach $a; done; \
                           timeout 5 nslookup example.com 2>/dev/null | grep -A9 -i '^name' | grep -q Address && echo DID resolve; \
                           ping -c 1 -W 1 172.17.0.1 >/dev/null 2>&1 && echo DID ping; \
                           grep -vE '^Iface' /proc/net/route | sed 's/^/DID see a route /'; \
                           ls /sys/class/net | grep -vxE 'lo|tunl0|sit0|ip6tnl0|gre0|gretap0|erspan0|ip_vti0|ip6_vti0|ip6gre0' \
                           | sed 's/^/DID see /'; echo tried";
            denied(&field.sh(command).await);
        }),
        quick("in", |field| async move {
            let port = free_port();
            let id = field
                .agent
                .submit(&format!("echo inside | nc -l -p {port} & echo up; sleep 1.5; kill $! 2>/dev/null"))
                .await;
            let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
            while field.agent.get(&format!("/api/v1/jobs/{id}")).await.1["result"].is_null() {
                // By its word: others of this machine may have got the port meanwhile, or the connection is with itself.
                let reached = TcpStream::connect_timeout(&address, Duration::from_millis(200))
                    .is_ok_and(|stream| first_word(stream) == b"inside");
                assert!(!reached, "what a job listens on is seen on the host");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let result = field.agent.ended(&id).await["result"].clone();
            assert!(result["stdout"].as_str().unwrap().starts_with("up\n"), "{result}");
        }),
    ]
}

/// The first six bytes that come within a fifth of a second; fewer where fewer come.
fn first_word(mut stream: TcpStream) -> Vec<u8> {
    let mut word = vec![0; 6];
    let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
    match std::io::Read::read_exact(&mut stream, &mut word) {
        Ok(()) => word,
        Err(_) => Vec::new(),
    }
}

pub fn literal() -> Vec<Attempt> {
    vec![
        quick("refused", |field| async move {
            let many: Vec<String> = (0..1025).map(|n| n.to_string()).collect();
            for (more, wanted) in [
                (json!({"command": "a\u{0}b"}), "command"),
                (json!({"command": "", "argv": ["echo", "a\u{0}b"]}), "argv.1"),
                (json!({"command": "", "argv": ["echo", "x".repeat(1 << 20)]}), "argv.1"),
                (json!({"command": "", "argv": many}), "argv"),
                (json!({"command": "x".repeat(1 << 20)}), "command"),
                (json!({"sandbox": {"env": {"A": "a\u{0}b"}}}), "sandbox.env.A"),
                (json!({"sandbox": {"env": {"A=B": "c"}}}), "sandbox.env"),
                (json!({"sandbox": {"env": {"A": "x".repeat(1 << 20)}}}), "sandbox.env.A"),
                (json!({"sandbox": {"image": "--privileged x"}}), "sandbox.image"),
                (json!({"job_id": "../../x"}), "job_id"),
                (json!({"job_id": "a\nb"}), "job_id"),
            ] {
                let (status, answer) = field.agent.post(sign(&payload("true", more).to_string())).await;
                assert_eq!((status, &answer["field"]), (400, &json!(wanted)), "{answer}");
            }
            for name in ["privileged", "cap_add", "binds", "devices", "network_mode", "user"] {
                let body = sign(&payload("true", json!({"sandbox": {name: "host"}})).to_string());
                let (status, answer) = field.agent.post(body).await;
                assert_eq!((status, &answer["code"]), (400, &json!("UNKNOWN_FIELD")), "{answer}");
            }
        }),
        quick("passed on as they are", |field| async move {
            let words = [
                "printf",
                "%s|",
                "--privileged",
                "-v",
                "/:/host",
                "a\nb",
                "$(id)",
                "`id`",
                "; id",
                "'\"",
                "",
            ];
            let sandbox = json!({"env": {"ODD": "a\nb=c\n--privileged", "LD_PRELOAD": "/tmp/x"}});
            let result = field.agent.run_with("", json!({"argv": words, "sandbox": sandbox})).await;
            let expected: String = words[2..].iter().map(|word| format!("{word}|")).collect();
            assert_eq!(result["stdout"], expected, "{result}");
            let result = field.sh_with("printf %s \"$ODD\"", sandbox).await;
            assert_eq!(result["stdout"], "a\nb=c\n--privileged", "{result}");
            let id = format!("--rm.{}:_-", crate::harness::unique());
            let result = field.agent.run_with("echo $QUICKCMD_JOB_ID", json!({"job_id": id})).await;
            assert_eq!(result["stdout"], format!("{id}\n"), "{result}");
        }),
    ]
}
