//! Which image a container is made from, and what is said where there is none.

use quickcmd::sandbox::{Engine, SandboxError};

use crate::bench::{Bench, docker, image};

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_image_is_said_and_never_means_never() {
    let bench = Bench::new().await;
    let error = bench.engine.resolve("quickcmd/no-such-image:1").await.unwrap_err();
    let SandboxError::ImageUnavailable { image, why } = error else { panic!("{error}") };
    assert_eq!(image, "quickcmd/no-such-image:1");
    assert!(why.contains("docker pull quickcmd/no-such-image:1"), "{why}");

    let mut gone = bench.shape.clone();
    gone.image.id = format!("sha256:{}", "0".repeat(64));
    let error = bench.engine.launch(gone, bench.label()).await.err().unwrap();
    assert!(matches!(error, SandboxError::ImageUnavailable { .. }), "{error}");
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_made_from_the_id_that_was_resolved() {
    let bench = Bench::new().await;
    let sandbox = bench.launch().await;
    let used = docker(&["inspect", "--format", "{{.Image}} {{.Config.Image}}", sandbox.id()]);
    let id = &bench.shape.image.id;
    assert!(id.starts_with("sha256:"));
    assert_eq!(used.trim(), format!("{id} {id}"));
    bench.gone(sandbox).await;
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_user_entrypoint_and_health_check_of_an_image_have_no_effect() {
    let name = format!("quickcmd/test-hostile:{}", quickcmd::base::ids::random_hex(4));
    let made = docker(&["create", image(), "true"]);
    docker(&[
        "commit",
        "--change=USER root",
        "--change=VOLUME /data",
        "--change=VOLUME /tmp",
        "--change=WORKDIR /proc/self",
        "--change=ENTRYPOINT [\"/bin/false\"]",
        "--change=HEALTHCHECK CMD /bin/false",
        made.trim(),
        &name,
    ]);
    docker(&["rm", made.trim()]);

    // Those without a name of their own, which are what an image's would be: other tests make some with names.
    let volumes = || {
        let all = docker(&["volume", "ls", "--quiet"]);
        all.lines().filter(|name| name.len() == 64).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = volumes();
    let mut bench = Bench::new().await;
    bench.shape.image = bench.engine.resolve(&name).await.unwrap();
    let sandbox = bench.launch().await;
    let inspected = docker(&[
        "inspect",
        "--format",
        "{{.Config.User}} {{.Config.StopSignal}} {{.Config.Healthcheck.Test}} {{range .Mounts}}{{.Type}}:{{.Destination}} {{end}}",
        sandbox.id(),
    ]);
    assert!(inspected.starts_with("65534:65534 SIGTERM [NONE]"), "{inspected}");
    bench.gone(sandbox).await;
    let run =
        bench.run("id -u; echo x >/data/x; echo y >/tmp/y; cat /data/x; grep ' /data ' /proc/mounts").await;
    assert!(run.stdout.starts_with("65534\nx\n"), "{run:?}");
    assert!(run.stdout.contains("tmpfs") && run.stdout.contains("nosuid"), "{run:?}");
    bench.close().await;
    let left: Vec<_> = volumes().into_iter().filter(|volume| !before.contains(volume)).collect();
    assert!(left.is_empty(), "volumes are left: {left:?}");
    docker(&["image", "rm", "--force", &name]);
}
