//! `--format`, as every verb has it whose answer is for people or for programs.

use clap::Arg;

use crate::output::progress::Format;

/// The option. What the verb's two answers are, it says by [`says`].
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Answer {
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: Format,
}

/// For `mut_arg` of the verb's arguments: the help of its `--format`.
pub fn says(help: &'static str) -> impl FnOnce(Arg) -> Arg {
    move |format| format.help(help)
}
