//! The agent as it is installed: an ordinary user whose only power is the docker group.

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    process::Command,
};

use quickcmd_init::proto::Ending;

use crate::bench::{Bench, image};

/// Set in the child that runs as the ordinary user.
const CHILD: &str = "QUICKCMD_TEST_ORDINARY";

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_user_in_the_docker_group_runs_jobs() {
    let own = std::fs::metadata("/proc/self").unwrap().uid();
    if own == 0 {
        return as_ordinary_user();
    }
    assert!(std::env::var_os(CHILD).is_none_or(|uid| uid.to_str() == Some(&own.to_string())));
    let bench = Bench::new().await;
    // A data folder that nobody else may enter, as the installed one is.
    assert_eq!(std::fs::metadata(bench.dir.path()).unwrap().permissions().mode() & 0o777, 0o700);
    let run = bench.run("id -u; exit 5").await;
    assert_eq!(*run.ending(), Ending::Exited { code: 5 });
    assert_eq!(run.stdout, "65534\n");
    bench.close().await;
}

/// Runs this very test again as a user that is neither root nor the sandbox's.
fn as_ordinary_user() {
    let group = std::fs::metadata("/var/run/docker.sock").expect("Docker runs").gid().to_string();
    // Where this program lies the user may have no way to it.
    let open = tempfile::tempdir().unwrap();
    std::fs::set_permissions(open.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = open.path().join("test");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let ran = Command::new("setpriv")
        .args(["--reuid=12345", "--regid=12345", "--groups", &group, "--inh-caps=-all"])
        .arg(&program)
        .args(["--exact", "ordinary::an_ordinary_user_in_the_docker_group_runs_jobs", "--nocapture"])
        .current_dir("/")
        .env("QUICKCMD_TEST_IMAGE", image())
        .env("TMPDIR", "/tmp")
        .env(CHILD, "12345")
        .output()
        .expect("setpriv (util-linux) is installed");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));
    assert!(said.contains("1 passed"), "{said}");
}
