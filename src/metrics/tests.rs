use std::process::{Command, Stdio};

use super::*;

fn text(metrics: &Metrics) -> String {
    String::from_utf8(metrics.text().unwrap()).unwrap()
}

/// Every family with at least one sample.
fn used() -> Arc<Metrics> {
    let metrics = Metrics::new();
    metrics.docker_call("create", Outcome::Timeout, Duration::from_millis(20));
    metrics.http_request("/api/v1/jobs/{id}", 404, Duration::from_millis(1));
    metrics
}

#[test]
fn the_seeds_two_metrics_stand_as_it_shows_them() {
    let metrics = Metrics::new();
    metrics.jobs_total.inc_by(42);
    metrics.jobs_running.set(2);
    let text = text(&metrics);
    assert!(
        text.contains(
            "# HELP quickcmd_agent_jobs_total Total number of jobs\n\
             # TYPE quickcmd_agent_jobs_total counter\n\
             quickcmd_agent_jobs_total 42\n"
        ),
        "{text}"
    );
    assert!(
        text.contains(
            "# HELP quickcmd_agent_jobs_running Currently running jobs\n\
             # TYPE quickcmd_agent_jobs_running gauge\n\
             quickcmd_agent_jobs_running 2\n"
        ),
        "{text}"
    );
}

#[test]
fn what_is_counted_shows_under_its_labels() {
    let metrics = used();
    metrics.job_ended(Reason::Timeout);
    metrics.job_ended(Reason::Timeout);
    metrics.refused(Code::QueueFull);
    metrics.connection_refused(ConnectionRefusal::Address);
    metrics.output_stderr.inc_by(7);
    {
        let _held = Held::of(&metrics.stream_readers);
        assert_eq!(metrics.stream_readers.get(), 1);
    }
    let text = text(&metrics);
    for line in [
        "quickcmd_agent_jobs_ended_total{reason=\"timeout\",status=\"failed\"} 2",
        "quickcmd_agent_jobs_ended_total{reason=\"exited\",status=\"completed\"} 0",
        "quickcmd_agent_refusals_total{code=\"QUEUE_FULL\"} 1",
        "quickcmd_agent_refusals_total{code=\"INVALID_SIGNATURE\"} 0",
        "quickcmd_agent_docker_calls_total{call=\"create\",outcome=\"timeout\"} 1",
        "quickcmd_agent_docker_call_seconds_count{call=\"create\"} 1",
        "quickcmd_agent_http_requests_total{class=\"4xx\",route=\"/api/v1/jobs/{id}\"} 1",
        "quickcmd_agent_connections_refused_total{reason=\"address\"} 1",
        "quickcmd_agent_output_bytes_total{stream=\"stderr\"} 7",
        "quickcmd_agent_stream_readers 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(text.contains("quickcmd_agent_build_info{"), "{text}");
    assert!(text.contains("process_resident_memory_bytes "), "{text}");
}

#[test]
fn every_family_of_the_registry_is_in_the_catalogue() {
    let metrics = used();
    let mut shown: Vec<_> = metrics.registry.gather().iter().map(|family| family.name().to_owned()).collect();
    let mut known: Vec<_> = metrics.catalogue().iter().map(|entry| entry.name.clone()).collect();
    shown.sort();
    known.sort();
    assert_eq!(shown, known);
}

#[test]
fn the_documentation_lists_every_metric_and_no_other() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).unwrap();
    let rows = |lines: Vec<String>| {
        let mut rows: Vec<_> = lines.into_iter().filter(|line| line.starts_with("| `")).collect();
        rows.sort();
        rows.join("\n")
    };
    let wanted = Metrics::new()
        .catalogue()
        .iter()
        .map(|entry| {
            let labels: Vec<_> = entry.labels.iter().map(|label| format!("`{label}`")).collect();
            format!("| `{}` | {} | {} | {} |", entry.name, entry.kind, labels.join(", "), entry.help)
        })
        .collect();
    let found = rows(page.lines().map(str::to_owned).collect());
    let wanted = rows(wanted);
    assert_eq!(found, wanted, "docs/metrics.md should have these rows:\n{wanted}");
}

/// Asked for by `QUICKCMD_PROMTOOL` (the path of `promtool`), which scripts/test.sh sets.
#[test]
fn promtool_has_nothing_to_say() {
    let Some(promtool) = std::env::var_os("QUICKCMD_PROMTOOL") else { return };
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), text(&used()).as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    assert!(done.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}
