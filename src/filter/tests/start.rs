//! What a start says of Docker's socket.

use std::{os::unix::net::UnixListener, path::Path};

use tempfile::TempDir;

use super::{docker::Pair, rules};
use crate::filter::{Rules, Settings, Unfit, start::unreachable};

fn settings(dir: &TempDir, docker: &Path) -> Settings {
    Settings {
        listen: dir.path().join("filter.sock"),
        mode: 0o600,
        docker: docker.to_owned(),
        rules: rules(),
    }
}

async fn look(dir: &TempDir, docker: &Path) -> Result<Option<String>, Unfit> {
    settings(dir, docker).look().await
}

#[tokio::test]
async fn what_stays_wrong_is_refused_as_an_option_and_what_may_come_as_docker() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("docker.sock");
    let Err(Unfit::Docker(why)) = look(&dir, &missing).await else { panic!("there is none") };
    assert!(why.contains("docker.sock does not exist: start Docker"), "{why}");
    let below_a_file = dir.path().join("file/docker.sock");
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(matches!(look(&dir, &below_a_file).await, Err(Unfit::Docker(_))));
    for wrong in [&file, dir.path()] {
        let Err(Unfit::Option(why)) = look(&dir, wrong).await else { panic!("{}", wrong.display()) };
        assert!(why.contains("is no socket: name the one that Docker listens on"), "{why}");
    }
    let own = dir.path().join("filter.sock");
    let Err(Unfit::Option(why)) = look(&dir, &own).await else { panic!("the filter before itself") };
    assert!(why.contains("--docker and --listen are both"), "{why}");
    // By another name, too.
    let _listener = UnixListener::bind(&own).unwrap();
    let other = dir.path().join("other.sock");
    std::os::unix::fs::symlink(&own, &other).unwrap();
    assert!(matches!(look(&dir, &other).await, Err(Unfit::Option(_))));
    let open = Settings { rules: Rules { sandboxes: "/".to_owned(), ..rules() }, ..settings(&dir, &missing) };
    assert!(matches!(open.look().await, Err(Unfit::Option(_))));
}

#[tokio::test]
async fn a_docker_that_does_not_answer_yet_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("docker.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    // It takes connections, and nobody reads from them.
    let said = look(&dir, &socket).await.unwrap().unwrap();
    assert!(said.contains("takes connections and does not answer within"), "{said}");
    drop(listener);
    let said = look(&dir, &socket).await.unwrap().unwrap();
    assert!(said.contains("nothing answers on --docker") && said.contains("start Docker"), "{said}");
    assert!(said.contains("its jobs wait"), "{said}");
    // It answers, but without the header that every Docker sends.
    let pair = Pair::new(Box::new(|_| (200, "OK".to_owned()))).await;
    let said = look(&dir, &pair.docker()).await.unwrap().unwrap();
    assert!(said.contains("is not Docker"), "{said}");
    let pair = Pair::like_docker().await;
    assert_eq!(look(&dir, &pair.docker()).await, Ok(None));
}

#[test]
fn a_user_without_the_right_is_named_with_the_group_that_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
    // Whose group it is, is read from the socket; a folder will do.
    let Unfit::Docker(why) = unreachable(dir.path(), &denied) else { panic!("it may be given the right") };
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
    assert!(why.contains(&format!("may not be used by the user {user}: add that user")), "{why}");
    let group = nix::unistd::Group::from_gid(nix::unistd::getegid()).unwrap().unwrap().name;
    assert!(why.contains(&format!("(usermod -aG {group} {user})")), "{why}");
}
