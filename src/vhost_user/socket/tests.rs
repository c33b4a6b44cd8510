use vmm_sys_util::tempdir::TempDir;

use super::*;

fn place() -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let path = dir.as_path().join("disk.sock");
    (dir, path)
}

#[test]
fn a_live_socket_is_refused_and_a_stale_one_taken_over() {
    let (_dir, path) = place();
    let first = Socket::bind(&path, Access::default()).unwrap();
    let error = Socket::bind(&path, Access::default()).unwrap_err();
    assert!(matches!(error, SocketError::InUse(_)), "{error}");
    std::mem::forget(first.made);
    drop(first.kind);
    assert!(path.exists());
    let second = Socket::bind(&path, Access::default()).unwrap();
    assert!(UnixStream::connect(&path).is_ok());
    drop(second);
    assert!(!path.exists());
}

/// Daemons started at once after a crash of the machine's only one.
#[test]
fn of_many_that_find_a_dead_socket_at_once_one_gets_it() {
    for round in 0..100 {
        let (dir, path) = place();
        drop(UnixListener::bind(&path).unwrap());
        let start = std::sync::Barrier::new(4);
        let bind = || {
            start.wait();
            Socket::bind(&path, Access::default())
        };
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(bind)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        let got: Vec<_> = results.iter().filter(|r| r.is_ok()).collect();
        assert_eq!(got.len(), 1, "round {round}: {results:?}");
        let at = fs::symlink_metadata(&path).unwrap();
        let made = got[0].as_ref().unwrap().made.as_ref().unwrap();
        assert_eq!(made.id, (at.dev(), at.ino()), "round {round}");
        assert_eq!(fs::read_dir(dir.as_path()).unwrap().count(), 1, "round {round}");
    }
}

#[test]
fn other_files_and_long_paths_are_left_alone() {
    let (dir, path) = place();
    fs::write(&path, "precious").unwrap();
    let error = Socket::bind(&path, Access::default()).unwrap_err();
    assert!(matches!(error, SocketError::NotASocket(_)), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    let long = dir.as_path().join("x".repeat(120));
    assert!(matches!(Socket::bind(&long, Access::default()), Err(SocketError::TooLong { .. })));
    let nowhere = dir.as_path().join("no/such");
    assert!(matches!(Socket::bind(&nowhere, Access::default()), Err(SocketError::NoDirectory(_))));
}

#[test]
fn mode_and_group_are_set_and_nothing_is_left_beside() {
    let (dir, path) = place();
    let group = Some(fs::metadata(dir.as_path()).unwrap().gid());
    let socket = Socket::bind(&path, Access { mode: Some(0o640), group }).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
    assert_eq!(fs::read_dir(dir.as_path()).unwrap().count(), 1);
    assert_eq!(socket.path(), Some(path.as_path()));
}

#[test]
fn a_socket_somebody_else_put_there_is_not_removed() {
    let (_dir, path) = place();
    let ours = Socket::bind(&path, Access::default()).unwrap();
    fs::remove_file(&path).unwrap();
    let theirs = UnixListener::bind(&path).unwrap();
    drop(ours);
    assert!(path.exists());
    drop(theirs);
}

#[test]
fn adopted_descriptors_are_told_apart() {
    let (_dir, path) = place();
    let listening = UnixListener::bind(&path).unwrap();
    let socket = Socket::adopt(listening.into()).unwrap();
    assert!(matches!(socket.kind, Kind::Listening(_)));
    let (one, _other) = UnixStream::pair().unwrap();
    assert!(matches!(Socket::adopt(one.into()).unwrap().kind, Kind::Connected(_)));
    let file = File::open("/dev/null").unwrap();
    assert!(matches!(Socket::adopt(file.into()), Err(SocketError::BadFd { .. })));
}
