//! The attempts of a hostile job (docs/testing.md, "Escape"), each as a real job on real Docker through a real agent:
//! how it must end, and that the agent, a neighbour and the host are as before. `make test` runs those that are over soon,
//! `make escape` (`QUICKCMD_ESCAPE=full`) all of them, and prints the table.

#![allow(clippy::unwrap_used, reason = "a test may stop where it stands")]

#[path = "../common/harness.rs"]
#[allow(dead_code, reason = "it is made for more than these tests")]
mod harness;

mod field;
mod files;
mod kernel;
mod neighbour;
mod output;
mod reach;
mod resources;
mod volumes;

use std::{fmt::Write as _, sync::Arc, time::Instant};

use field::{Attempt, Field};
use neighbour::Neighbour;

/// Rows of the table, in its order: name, and how it must end.
fn table() -> Vec<(&'static str, &'static str, Vec<Attempt>)> {
    vec![
        ("fork bomb, thread bomb, zombie flood", "capped, killed at the deadline", resources::bombs()),
        ("work in a child that nobody waits for", "counted", resources::work()),
        ("heap bomb; a child killed for memory", "`oom`; `completed` with `oom_killed`", resources::memory()),
        ("fill tmpfs, inodes, /dev/shm; write the root", "ENOSPC or `oom`; EROFS", resources::disk()),
        ("10 GB of output; one line of 1 GB", "cut at the cap, counted; agent small", output::floods()),
        ("NUL, invalid UTF-8, forged headers, escapes", "byte-exact in the record", output::bytes()),
        ("closed stdout, daemons, double forks", "ends by exit; no process left", resources::daemons()),
        (
            "ignore SIGTERM; SIGSTOP; kill -9 1",
            "SIGKILL after the grace; typed ending",
            resources::stubborn(),
        ),
        ("mount, namespaces, bpf, keys, io_uring, ...", "denied", kernel::calls()),
        ("set-uid files, file capabilities", "no gain", kernel::gain()),
        ("/proc/sys, kcore, release_agent, /proc/1, ...", "read-only, masked, denied", kernel::proc()),
        ("overwrite /proc/self/exe; workdir in /proc", "denied; 400", kernel::itself()),
        ("Docker's socket, secrets, supervisor's channel", "not there, or not reachable", reach::secrets()),
        ("DNS, metadata, gateway; listen on 0.0.0.0", "unreachable; unseen on the host", reach::network()),
        (
            "artifacts and files: links, pipes, .., sparse, swapped",
            "only regular files, below the cap",
            files::tricks(),
        ),
        (
            "argv, env, labels: NUL, newlines, 1 MB, --privileged",
            "400, or passed on literally",
            reach::literal(),
        ),
        ("many jobs that end at once", "no output and no exit code lost", output::many()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_attempt_of_the_table_ends_as_it_must() {
    let full = std::env::var("QUICKCMD_ESCAPE").is_ok_and(|wanted| wanted == "full");
    let only = std::env::var("QUICKCMD_ESCAPE_ROW").unwrap_or_default();
    let field = Arc::new(Field::new().await);
    let (mut shown, mut failures) = (String::new(), Vec::new());
    for (name, ends, attempts) in table().into_iter().filter(|(name, ..)| name.contains(&only)) {
        let begin = Instant::now();
        let all = attempts.len();
        let attempts: Vec<Attempt> = attempts.into_iter().filter(|one| full || !one.long).collect();
        let tried = attempts.len();
        let before = failures.len();
        let neighbour = Neighbour::new(&field.agent).await;
        for attempt in attempts {
            // On a task, so that a failed one does not end the others.
            if tokio::spawn((attempt.run)(Arc::clone(&field))).await.is_err() {
                failures.push(format!("{name}: {}", attempt.name));
            }
        }
        let checked = Arc::clone(&field);
        if tokio::spawn(async move { checked.as_before(neighbour).await }).await.is_err() {
            failures.push(format!("{name}: what is left afterwards"));
        }
        let verdict = if failures.len() > before { "FAILED" } else { "held" };
        let time = begin.elapsed().as_secs_f64();
        let _ = writeln!(shown, "{verdict:6}  {tried:2}/{all:<2} {time:6.1} s  {name:54}  {ends}");
    }
    println!("\nescape: verdict, attempts (of all), time, row, how it must end\n{shown}");
    assert!(failures.is_empty(), "these did not end as they must (the reasons are above): {failures:#?}");
}
