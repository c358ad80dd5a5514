//! `portguard harden`: the range is narrowed, stays so, and comes back.

use std::{fs, net::TcpListener, path::Path, process::Output};

use anyhow::{Context, Result, ensure};
use guard_tests::{
    build,
    frames::G,
    guard::Guard,
    netns::{Direct, Namespace},
};

use crate::{RANGE, RESERVED, guards, kernels};

const FILE: &str = "99-zz-portguard.conf";

fn harden(host: &Namespace, folder: &Path, control: &Path, words: &[&str]) -> Result<Output> {
    host.command(build::binary())
        .arg("harden")
        .args(words)
        .arg("--sysctl-dir")
        .arg(folder)
        .arg("--control-socket")
        .arg(control)
        .output()
        .context("portguard harden")
}

fn reserved(host: &Namespace) -> Result<String> {
    let text = host.run(|| fs::read_to_string(format!("/proc/sys/{RESERVED}")))?;
    Ok(text.trim().to_owned())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_range_is_narrowed_and_comes_back_while_the_guard_follows() -> Result<()> {
    let link = Direct::new()?;
    let guard = Guard::start(&link.guarded, "vg", &["--xdp-mode", "generic"])?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join(FILE);
    let run = |words: &[&str]| harden(&link.guarded, folder.path(), &guard.control_socket(), words);

    let tried = run(&["--range", "40000-45000", "--reserve", "41000", "--dry-run"])?;
    ensure!(tried.status.success(), "{}", said(&tried));
    ensure!(kernels(&link.guarded)? == (32_768, 60_999) && !file.exists());

    let done = run(&["--range", "40000-45000", "--reserve", "41000"])?;
    ensure!(done.status.success(), "{}", said(&done));
    ensure!(
        said(&done).contains("the guard has 40000-45000 in force"),
        "{}",
        said(&done)
    );
    ensure!(guards(&guard)? == (40_000, 45_000));
    ensure!(reserved(&link.guarded)? == "41000");

    // The former values are those before the first change, however often it is narrowed.
    let again = run(&["--range", "40000-44000"])?;
    ensure!(again.status.success(), "{}", said(&again));
    let undone = run(&["--revert"])?;
    ensure!(undone.status.success(), "{}", said(&undone));
    ensure!(guards(&guard)? == (32_768, 60_999) && kernels(&link.guarded)? == (32_768, 60_999));
    ensure!(reserved(&link.guarded)?.is_empty() && !file.exists());
    ensure!(run(&["--revert"])?.status.code() == Some(1));
    Ok(())
}

#[test]
fn sockets_that_would_fall_out_and_changes_by_others_forbid_it() -> Result<()> {
    let link = Direct::new()?;
    let folder = tempfile::tempdir()?;
    let nobody = folder.path().join("control.sock");
    let run = |words: &[&str]| harden(&link.guarded, folder.path(), &nobody, words);

    let listener = link.guarded.run(|| TcpListener::bind((G.ipv4, 50_000)))?;
    let refused = run(&["--range", "40000-45000"])?;
    ensure!(refused.status.code() == Some(78), "{}", said(&refused));
    ensure!(
        said(&refused).contains("tcp port 50000 (listens)"),
        "{}",
        said(&refused)
    );
    ensure!(kernels(&link.guarded)? == (32_768, 60_999));
    ensure!(!folder.path().join(FILE).exists());
    ensure!(
        run(&["--range", "40000-45000", "--force"])?
            .status
            .success()
    );
    ensure!(kernels(&link.guarded)? == (40_000, 45_000));
    drop(listener);

    link.guarded.sysctl(RANGE, "40000 44444")?;
    let changed = run(&["--revert"])?;
    ensure!(changed.status.code() == Some(1), "{}", said(&changed));
    ensure!(kernels(&link.guarded)? == (40_000, 44_444));
    ensure!(run(&["--revert", "--force"])?.status.success());
    ensure!(kernels(&link.guarded)? == (32_768, 60_999));
    Ok(())
}

#[test]
fn where_nothing_can_be_kept_it_says_what_to_write() -> Result<()> {
    let link = Direct::new()?;
    let missing = Path::new("/proc/portguard-has-no-folder-here");
    let done = harden(&link.guarded, missing, missing, &["--range", "40000-45000"])?;
    ensure!(done.status.success(), "{}", said(&done));
    ensure!(
        said(&done).contains("net.ipv4.ip_local_port_range = 40000 45000"),
        "{}",
        said(&done)
    );
    ensure!(kernels(&link.guarded)? == (40_000, 45_000));

    // A range that the kernel refuses leaves everything as it was.
    let folder = tempfile::tempdir()?;
    let refused = harden(
        &link.guarded,
        folder.path(),
        missing,
        &["--range", "100-200", "--reserve", "150"],
    )?;
    ensure!(refused.status.code() == Some(1), "{}", said(&refused));
    ensure!(
        said(&refused).contains("ip_unprivileged_port_start"),
        "{}",
        said(&refused)
    );
    ensure!(kernels(&link.guarded)? == (40_000, 45_000) && reserved(&link.guarded)?.is_empty());
    ensure!(!folder.path().join(FILE).exists());
    Ok(())
}
