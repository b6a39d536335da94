//! Files that a job leaves for the agent to keep, and files that it brings.

use serde_json::{Value, json};

use crate::{
    field::{Attempt, Field, quick},
    harness::{payload, sign},
};

/// What the result says of a path.
fn refused<'a>(result: &'a Value, path: &str) -> &'a str {
    let list = result["artifacts"].as_array().unwrap_or_else(|| panic!("no list: {result}"));
    let one = list.iter().find(|one| one["path"] == path).unwrap_or_else(|| panic!("no {path}: {list:?}"));
    one["refused"].as_str().unwrap_or("kept")
}

/// Every byte that was kept of a job.
async fn kept(field: &Field, result: &Value) -> Vec<u8> {
    let id = result["job_id"].as_str().unwrap();
    let url = field.agent.url(&format!("/api/v1/jobs/{id}/artifacts"));
    let answer = field.agent.http.get(url).send().await.unwrap();
    if answer.status().is_success() { answer.bytes().await.unwrap().to_vec() } else { Vec::new() }
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

pub fn tricks() -> Vec<Attempt> {
    vec![
        quick("links, pipes, devices, holes", |field| async move {
            let command = "ln -s /etc/passwd link; ln -s / out; mkfifo pipe; echo x >one; ln one two; \
                           mkdir in; ln -s ../link in/link; mkfifo in/pipe; ln -s /proc/1/environ in/environ; echo fine >in/fine; \
                           truncate -s 900M sparse; head -c 1048577 /dev/zero >large; mkdir closed; chmod 0 closed; \
                           nc -l -U sock 2>/dev/null & mkdir many; for n in $(seq 100); do echo $n >many/$n; done; kill $! 2>/dev/null; true";
            let paths = [
                "link",
                "out/etc/passwd",
                "pipe",
                "one",
                "two",
                "in",
                "sparse",
                "large",
                "closed",
                "many",
                "/etc/shadow",
            ];
            let result = field.sh_with(command, json!({"artifacts": paths})).await;
            assert_eq!(result["exit_code"], 0, "{result}");
            for (path, why) in [
                ("link", "symlink"),
                ("out/etc/passwd", "symlink"),
                ("pipe", "not_a_file"),
                ("one", "hard_link"),
                ("two", "hard_link"),
                ("in/link", "symlink"),
                ("in/pipe", "not_a_file"),
                ("in/environ", "symlink"),
                ("in/fine", "kept"),
                ("sparse", "too_large"),
                ("large", "too_large"),
                ("closed", "unreadable"),
                ("many", "too_many"),
            ] {
                assert_eq!(refused(&result, path), why, "{path}: {}", result["artifacts"]);
            }
            let kept = kept(&field, &result).await;
            assert!(holds(&kept, "fine") && !holds(&kept, "root:x:"), "{} bytes", kept.len());
            let count = result["artifacts"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|one| one["sha256"].is_string())
                .count();
            assert_eq!(count, 20, "as many as may be kept");
        }),
        quick("outside of the folder", |field| async move {
            for path in ["../x", "/tmp/../etc/passwd", "/proc/1/environ", "/.quickcmd/init", "a//b", ".", "/"]
            {
                for sandbox in
                    [json!({"artifacts": [path]}), json!({"files": [{"path": path, "content": "x"}]})]
                {
                    let body = sign(&payload("true", json!({"sandbox": sandbox})).to_string());
                    let (status, answer) = field.agent.post(body).await;
                    assert_eq!((status, &answer["code"]), (400, &json!("INVALID_FIELD")), "{path}: {answer}");
                }
            }
            for path in ["/etc/passwd", "/bin/busybox", "/var/x", "/dev2/x"] {
                let files = json!({"files": [{"path": path, "content": "x"}]});
                let result = field.sh_with("echo ran", files).await;
                assert_eq!(
                    (&result["exit_code"], &result["stdout"]),
                    (&json!(126), &json!("")),
                    "{path}: {result}"
                );
            }
        }),
        quick("swapped all the time", |field| async move {
            for _ in 0..3 {
                let command = "/tmp/hostile swap; sleep 0.1; echo left";
                let result = field.hostile(command, json!({"artifacts": ["prize"]})).await;
                assert_eq!(result["stdout"], "left\n", "{result}");
                let kept = kept(&field, &result).await;
                assert!(!holds(&kept, "root:"), "{result}");
            }
        }),
        quick("the start folder swapped", |field| async move {
            let command = "mkdir /tmp/s; cd /tmp; mv s t; ln -s /etc s; echo mine >t/passwd";
            let sandbox = json!({"workdir": "/work", "artifacts": ["passwd", "/tmp/s/passwd"]});
            let result = field.sh_with(command, sandbox).await;
            assert_eq!(refused(&result, "passwd"), "missing");
            assert_eq!(refused(&result, "/tmp/s/passwd"), "symlink");
        }),
    ]
}
