//! What is made from the description of the command line: completions for shells, and man pages.

use std::{fs, io::Write, path::Path};

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::{
    base::failure::Failure,
    cli::{arguments::Cli, output::print},
};

/// The name of the binary.
const NAME: &str = "portguard";

/// Prints what has `shell` complete command lines of portguard.
///
/// # Errors
/// When standard output cannot be written to.
pub fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);

    print(|out| out.write_all(&script))
}

/// Prints the man page of portguard, or writes one of each command into `folder`, such as
/// `portguard-run.1`.
///
/// # Errors
/// When the folder, a file or standard output cannot be written to.
pub fn man(folder: Option<&Path>) -> Result<(), Failure> {
    let Some(folder) = folder else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command())
            .render(&mut page)
            .context("cannot make the man page")?;
        return print(|out| out.write_all(&page));
    };
    fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), folder))
        .with_context(|| {
            format!(
                "{}: cannot write the man pages; name a folder that you may write to",
                folder.display()
            )
        })?;

    Ok(())
}
