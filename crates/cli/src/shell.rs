//! Completions and man pages, which both binaries make of their command lines.

use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;
use sparsevd_format::write_atomically;

use crate::{Outcome, text};

/// Arguments of the subcommand `completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
Bash reads them from ~/.local/share/bash-completion/completions/PROGRAM, fish from
~/.config/fish/completions/PROGRAM.fish, and zsh from _PROGRAM in a folder of its $fpath.")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Arguments of the subcommand `man`.
#[derive(Debug, Args)]
#[command(after_help = "\
Without a folder the page of the program goes to stdout: PROGRAM man | man -l -")]
pub struct ManArgs {
    /// Folder that the pages of the program and of its subcommands are written to
    #[arg(long, short, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Prints the completions of a command line.
///
/// # Errors
/// A closed stdout.
pub fn completions(args: &CompletionsArgs, mut command: Command) -> anyhow::Result<Outcome> {
    let (name, mut script) = (command.get_name().to_owned(), vec![]);
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    text(String::from_utf8(script)?.trim_end())?;
    Ok(Outcome::Done)
}

/// Prints the man page of a command line, or writes a page for each of its subcommands too.
///
/// # Errors
/// A closed stdout, a folder that cannot be written to.
pub fn man(args: &ManArgs, command: Command) -> anyhow::Result<Outcome> {
    let render = |command: Command| -> anyhow::Result<Vec<u8>> {
        let mut page = vec![];
        Man::new(command).render(&mut page)?;
        Ok(page)
    };
    let Some(folder) = &args.out else {
        text(String::from_utf8(render(command)?)?.trim_end())?;
        return Ok(Outcome::Done);
    };
    let name = command.get_name().to_owned();
    let subcommands = command.get_subcommands().filter(|s| !s.is_hide_set());
    let of_subcommand = |s: &Command| {
        let usage = format!("{name} {}", s.get_name());
        s.clone()
            .bin_name(&usage)
            .display_name(usage.replace(' ', "-"))
    };
    let mut pages: Vec<Command> = subcommands.map(of_subcommand).collect();
    pages.push(command);
    for command in pages {
        let name = command.get_display_name().unwrap_or(command.get_name());
        let file = folder.join(format!("{name}.1"));
        let page = render(command)?;
        write_atomically(&file, |out| out.write_all(&page))?;
        text(format_args!("wrote {}", file.display()))?;
    }
    Ok(Outcome::Done)
}
