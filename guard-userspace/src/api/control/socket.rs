//! The file of the control socket.

use std::{
    fs::{self, DirBuilder, Permissions},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::Context;
use nix::{
    sys::stat::{Mode, fchmod},
    unistd::geteuid,
};
use tokio::net::{UnixListener, UnixSocket, UnixStream};

use crate::base::{
    failure::{Exit, Failure},
    scratch,
};

/// Callers that may wait while others are answered.
const BACKLOG: u32 = 64;

/// What is at the path of a control socket that no process answers on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PathState {
    /// Nothing.
    Free,
    /// The socket of a daemon that was killed.
    Stale,
}

/// A listening control socket. Its file goes with it.
#[derive(Debug)]
pub struct ControlSocket {
    pub(super) listener: UnixListener,
    pub(super) file: SocketFile,
}

impl ControlSocket {
    /// Listens on `path`, which only its owner can open. Makes the folder when it is missing, and
    /// takes the place of a socket that no process answers on any more.
    ///
    /// # Errors
    /// Exit code 69 when a process answers there or the file is no socket, 77 when a privilege is
    /// missing, else 1.
    pub async fn bind(path: &Path) -> Result<Self, Failure> {
        if Self::inspect(path).await? == PathState::Stale {
            fs::remove_file(path).map_err(|error| not_usable(path, error))?;
        }

        Self::listen(path).map_err(not_listening)
    }

    /// Whether [`bind`](Self::bind) can make the socket and the folders that it lacks. Leaves nothing.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn try_folder(path: &Path) -> Result<(), Failure> {
        let Some(folder) = path.parent() else {
            return Ok(());
        };
        let cannot = if folder.as_os_str().is_empty() || folder.is_dir() {
            format!("cannot listen on {}", path.display())
        } else {
            format!("cannot make {}", folder.display())
        };

        scratch::file_in(folder)
            .map(drop)
            .context(cannot)
            .map_err(not_listening)
    }

    /// Says whether [`bind`](Self::bind) finds room at `path`. Touches nothing.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub async fn inspect(path: &Path) -> Result<PathState, Failure> {
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(PathState::Free),
            Err(error) => return Err(not_usable(path, error)),
        };
        if !metadata.file_type().is_socket() {
            return Err(Failure::unavailable(format!(
                "{}: exists and is no socket",
                path.display()
            ))
            .remedy("remove it, or give another --control-socket"));
        }

        match UnixStream::connect(path).await {
            Ok(stream) => Err(taken(path, pid(&stream))),
            // A daemon that is too busy to accept is alive.
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(taken(path, None)),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(PathState::Stale),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(PathState::Free),
            Err(error) => Err(not_usable(path, error)),
        }
    }

    /// Whether what is at `path` was put there by another user.
    pub fn is_anothers(path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok_and(|file| file.uid() != geteuid().as_raw())
    }

    fn listen(path: &Path) -> anyhow::Result<Self> {
        // What is made for a socket that cannot be bound goes at once.
        let mut folders = Folders::default();
        if let Some(folder) = path.parent() {
            folders
                .make(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let cannot = || format!("cannot listen on {}", path.display());
        let socket = UnixSocket::new_stream().with_context(cannot)?;
        // The file takes the mode that the socket has when it is bound (`unix_bind_bsd` in
        // https://github.com/torvalds/linux/blob/001a25088c35/net/unix/af_unix.c), so it is never
        // open to others, whatever the umask.
        fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR).with_context(cannot)?;
        socket.bind(path).with_context(cannot)?;
        let file = SocketFile::new(path, folders).with_context(cannot)?;

        Ok(Self {
            listener: socket.listen(BACKLOG).with_context(cannot)?,
            file,
        })
    }
}

/// Folders that were made for the socket, the outermost first. They go again with this value, as far
/// as nothing else is in them.
#[derive(Debug, Default)]
struct Folders(Vec<PathBuf>);

impl Folders {
    /// Makes `folder` and those above it, readable for all whatever the umask, unless it is there.
    fn make(&mut self, folder: &Path) -> io::Result<()> {
        if folder.as_os_str().is_empty() || folder.is_dir() {
            return Ok(());
        }
        if let Some(above) = folder.parent() {
            self.make(above)?;
        }
        DirBuilder::new().mode(0o755).create(folder)?;
        self.0.push(folder.to_owned());

        fs::set_permissions(folder, Permissions::from_mode(0o755))
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        for folder in self.0.iter().rev() {
            // One that another process uses stays.
            if fs::remove_dir(folder).is_err() {
                return;
            }
        }
    }
}

fn pid(stream: &UnixStream) -> Option<i32> {
    stream.peer_cred().ok()?.pid()
}

fn taken(path: &Path, pid: Option<i32>) -> Failure {
    let daemon = pid.map_or_else(String::new, |pid| format!(" with pid {pid}"));

    Failure::unavailable(format!("{}: a daemon{daemon} answers here", path.display()))
        .remedy("stop it, or give another --control-socket")
}

fn not_listening(error: anyhow::Error) -> Failure {
    let denied = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == ErrorKind::PermissionDenied);
    let code = if denied {
        Exit::NotPermitted
    } else {
        Exit::Runtime
    };

    Failure::new(code, error).remedy("run portguard as root, or give another --control-socket")
}

fn not_usable(path: &Path, error: io::Error) -> Failure {
    let code = match error.kind() {
        ErrorKind::PermissionDenied => Exit::NotPermitted,
        _ => Exit::Runtime,
    };
    let error = anyhow::Error::new(error).context(format!("cannot use {}", path.display()));

    Failure::new(code, error).remedy("run portguard as root, or give another --control-socket")
}

/// A socket file, removed on drop unless another file is in its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
    // Dropped after the file is gone.
    _folders: Folders,
}

impl SocketFile {
    fn new(path: &Path, folders: Folders) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: Self::identity(path)?,
            _folders: folders,
        })
    }

    fn identity(path: &Path) -> io::Result<(u64, u64)> {
        let metadata = fs::symlink_metadata(path)?;

        Ok((metadata.dev(), metadata.ino()))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if Self::identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            // What cannot be removed is replaced by the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}
