//! Commands that follow from the policy as it is: made by the daemon where one runs, and here where none
//! does, with the same words and the same outcome.

use std::cell::RefCell;
use std::env;

use clap::FromArgMatches as _;

use crate::controller::{Care, Controller, Done, News, Session};
use crate::daemon::{self, Answered, Asked, Keeper};
use crate::dirs::DirOptions;
use crate::policy::change::Change;
use crate::policy::model::Policy;
use crate::privileges;
use crate::show::{self, Style};

use super::confirm::{Confirm, next_step};
use super::error::{Error, Result};
use super::output::{complaint, tell, warn_each, warning, warnings};
use super::{Answer, Cli, help, output};

type Changes = Box<dyn FnOnce(&Policy) -> Result<Vec<Change>>>;

/// What a command changes.
pub(super) struct Edit {
    changes: Changes,
    confirm: Confirm,
    terminate: bool,
    shows_ids: bool,
}

impl Edit {
    pub(super) fn new(
        confirm: Confirm,
        changes: impl FnOnce(&Policy) -> Result<Vec<Change>> + 'static,
    ) -> Self {
        Self {
            changes: Box::new(changes),
            confirm,
            terminate: false,
            shows_ids: false,
        }
    }

    /// Of rules, which are shown with their ids. Flows may be judged again by them.
    pub(super) fn of_rules(self, terminate: bool) -> Self {
        Self {
            terminate,
            shows_ids: true,
            ..self
        }
    }

    /// Makes it, for the command that this process was started with.
    pub(super) fn run(self, dirs: &DirOptions) -> Result<Answer> {
        privileges::check().map_err(|error| Error::from(crate::controller::Error::from(error)))?;
        let style = Style::of_stdout();
        let arguments = env::args_os().skip(1).map(|word| word.into_string().ok());
        if let Some(arguments) = arguments.collect::<Option<Vec<String>>>() {
            let asked = Asked {
                arguments,
                is_coloured: style.is_coloured(),
                session: Session::current(),
            };
            if let Some(answered) = daemon::forward(dirs, &asked)? {
                output::repeat(&answered.stderr);
                if answered.is_done {
                    tell(&answered.stdout);
                }
                return Ok(match answered.is_done {
                    true => Answer::Yes,
                    false => Answer::Refused,
                });
            }
        }
        let mut controller = Controller::open(dirs)?;
        let changes = (self.changes)(controller.policy())?;
        let done = self
            .confirm
            .change(&mut controller, &changes, self.terminate)?;
        warn_each(&done.warnings);
        tell(&text(&done, self.shows_ids, style));
        Ok(Answer::Yes)
    }

    /// Makes it with what the daemon keeps, and returns what the command is to say.
    fn make(self, keeper: &Keeper, asked: &Asked) -> Answered {
        let said = RefCell::new(String::new());
        let done = keeper.with(Controller::open, |controller| {
            let changes = (self.changes)(controller.policy())?;
            let care = Care {
                confirm_within: self.confirm.within(),
                session: asked.session,
                tell: &|news| {
                    if let News::Warning(told) = news {
                        said.borrow_mut().push_str(&warning(told));
                    }
                },
            };
            Ok(controller.change_with(&changes, self.terminate, &care)?)
        });
        let stderr = said.into_inner();
        match done {
            Ok(done) => Answered {
                is_done: true,
                stdout: text(&done, self.shows_ids, Style::new(asked.is_coloured)),
                stderr: stderr + &warnings(&done.warnings),
            },
            Err(error) => {
                let error: Error = error;
                Answered {
                    is_done: false,
                    stdout: String::new(),
                    stderr: stderr + &complaint(&error, keeper.run_dir()),
                }
            }
        }
    }
}

fn text(done: &Done, shows_ids: bool, style: Style) -> String {
    let changes = match (shows_ids, done.changes.is_empty()) {
        (true, _) => show::changes_with_ids(&done.before, &done.changes, style),
        (false, true) => "nothing to change\n".to_owned(),
        (false, false) => show::changes(&done.before, &done.changes, style),
    };
    changes + &next_step(done)
}

/// Makes what a command has asked the daemon for; none where that is not the daemon's to do.
pub(super) fn serve(keeper: &Keeper, asked: &Asked) -> Option<Answered> {
    let program = ["sg-ctl".to_owned()];
    let words = program.iter().chain(&asked.arguments);
    let matches = help::command().try_get_matches_from(words).ok()?;
    let Cli { command, .. } = Cli::from_arg_matches(&matches).ok()?;
    Some(match command.edit()? {
        Ok(edit) => edit.make(keeper, asked),
        Err(error) => Answered {
            is_done: false,
            stdout: String::new(),
            stderr: complaint(&error, keeper.run_dir()),
        },
    })
}
