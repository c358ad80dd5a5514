//! The file of the socket.

use super::*;

#[test]
fn the_file_is_private_and_goes_with_the_server() {
    let before = umask(Mode::empty());
    let server = Server::start(Fake::default());
    umask(before);
    let mode = |path: &Path| fs::metadata(path).expect("exists").permissions().mode() & 0o777;
    let folder = server.socket.parent().expect("a folder").to_owned();
    assert_eq!(mode(&server.socket), 0o600);
    assert_eq!(mode(&folder), 0o755);

    let asked = Instant::now();
    server.stop.send(()).expect("runs");
    server.thread.join().expect("no panic");
    assert!(asked.elapsed() < Duration::from_millis(100));
    assert!(!server.socket.exists());
    assert!(!folder.exists(), "what was made for it goes with it");
}

#[test]
fn folders_that_others_use_stay() {
    let folder = TempDir::new().expect("a folder");
    let made = folder.path().join("a");
    let path = made.join("b/c/control.sock");
    runtime().block_on(async {
        let socket = ControlSocket::bind(&path).await.expect("binds");
        fs::write(made.join("theirs"), "").expect("writes");
        drop(socket);
    });
    assert!(made.exists() && !made.join("b").exists());
}

#[test]
fn a_live_daemon_keeps_its_socket() {
    let server = Server::start(Fake::default());
    let failure = bind(&server.socket).expect_err("is taken");

    assert_eq!(failure.code, Exit::Unavailable);
    assert_eq!(
        failure.to_string(),
        format!(
            "{}: a daemon with pid {} answers here; \
             stop it, or give another --control-socket",
            server.socket.display(),
            process::id()
        )
    );
    server.text(Question::Status);
}

#[test]
fn a_dead_daemons_socket_is_replaced() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("control.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("binds"));

    let runtime = runtime();
    runtime.block_on(async {
        let socket = ControlSocket::bind(&path).await.expect("replaces it");
        UnixStream::connect(&path).await.expect("connects");
        drop(socket);
    });
    assert!(!path.exists());
}

#[test]
fn what_is_no_socket_stays() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("control.sock");
    fs::write(&path, "precious").expect("writes");
    let failure = bind(&path).expect_err("fails");

    assert_eq!(failure.code, Exit::Unavailable);
    assert!(
        failure
            .to_string()
            .contains("exists and is no socket; remove it")
    );
    assert_eq!(fs::read(&path).expect("is there"), b"precious");
}

#[test]
fn a_successors_socket_stays() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("control.sock");
    let runtime = runtime();
    runtime.block_on(async {
        let first = ControlSocket::bind(&path).await.expect("binds");
        fs::rename(&path, folder.path().join("old.sock")).expect("moves");
        let _second = ControlSocket::bind(&path).await.expect("binds");
        drop(first);
        assert!(path.exists());
    });
}

#[test]
fn a_folder_that_cannot_be_made() {
    let folder = TempDir::new().expect("a folder");
    fs::write(folder.path().join("file"), "").expect("writes");
    let failure = bind(&folder.path().join("file/control.sock")).expect_err("fails");

    assert_eq!(failure.code, Exit::Runtime);
    assert!(
        failure
            .to_string()
            .contains("; run portguard as root, or give another"),
        "{failure}"
    );
}
