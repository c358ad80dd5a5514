//! Sessions of the secure shell.

use std::{
    fs, io,
    net::IpAddr,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::{Protocol, Server};
use crate::{netns::Namespace, scratch::Scratch};

/// Where the server of Debian wants an empty folder.
const EMPTY: &str = "/run/sshd";

/// A server's key and a client's, which nobody else uses.
#[derive(Debug)]
pub struct Ssh {
    scratch: Scratch,
    server_key: PathBuf,
    client_key: PathBuf,
}

impl Ssh {
    /// Makes the keys.
    pub fn new() -> Result<Self> {
        let scratch = Scratch::new()?;
        let key = |name| -> Result<PathBuf> {
            let path = scratch.file(name);
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(&path)
                .stdin(Stdio::null())
                .status()
                .context("run ssh-keygen")?;
            ensure!(made.success(), "ssh-keygen: {made}");
            Ok(path)
        };
        let (server_key, client_key) = (key("server")?, key("client")?);
        Ok(Self {
            scratch,
            server_key,
            client_key,
        })
    }

    /// Serves on a port of `host`. The server sends nothing to keep a session alive.
    pub fn serve(&self, host: &Namespace, port: u16) -> Result<Server> {
        match fs::create_dir(EMPTY) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("create {EMPTY}"));
            }
            _ => {}
        }
        let settings = format!(
            "Port {port}\nHostKey {}\nAuthorizedKeysFile {}.pub\nStrictModes no\nUsePAM no\n\
             PermitRootLogin yes\nPidFile none\nUseDNS no\nTCPKeepAlive no\n",
            self.server_key.display(),
            self.client_key.display(),
        );
        let settings = self.scratch.write("sshd_config", settings)?;
        let line = format!("/usr/sbin/sshd -D -f {}", settings.display());
        Server::start(host, &line)?.listening(host, Protocol::Tcp, port)
    }

    /// A client on `host` that runs `command` on the server. It sends nothing to keep the session
    /// alive, and gives up connecting after some seconds.
    pub fn client(&self, host: &Namespace, server: IpAddr, port: u16, command: &str) -> Command {
        let mut client = host.command("ssh");
        client
            .args(["-F", "none", "-o", "BatchMode=yes", "-o", "TCPKeepAlive=no"])
            .args(["-o", "StrictHostKeyChecking=no"])
            .args(["-o", "UserKnownHostsFile=/dev/null"])
            .args(["-o", "ConnectTimeout=4", "-o", "LogLevel=ERROR"])
            .arg("-i")
            .arg(&self.client_key)
            .args(["-p", &port.to_string(), &format!("root@{server}"), command])
            .stdin(Stdio::null());
        client
    }
}
