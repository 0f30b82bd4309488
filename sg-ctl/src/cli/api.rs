//! The access keys of the cloud's API.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::api::{Key, Keys};
use crate::dirs::{DirOptions, Dirs};
use crate::privileges;
use crate::show::{self, Style};

use super::Answer;
use super::error::Result;
use super::output::{print, print_json, tell};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Work with access keys
    #[command(subcommand)]
    Key(KeyCommand),
}

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Make an access key, and print its secret this once
    Create(Create),
    /// List access keys
    List(List),
    /// Delete an access key; requests signed with it are refused at once
    Delete(Delete),
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// What the key is for
    name: String,
    /// Let it look at everything and change nothing
    #[arg(long)]
    read_only: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    /// Its name or its id
    key: String,
}

impl Command {
    pub(super) fn run(self, dirs: &DirOptions) -> Result<Answer> {
        privileges::check().map_err(crate::controller::Error::from)?;
        let dirs = Dirs::create(dirs).map_err(crate::controller::Error::from)?;
        let keys = Keys::of(dirs.state());
        // Two commands at once would lose a key.
        let _lock = dirs.lock().map_err(crate::controller::Error::from)?;
        let Self::Key(command) = self;
        match command {
            KeyCommand::Create(command) => {
                let key = keys.create(&command.name, command.read_only)?;
                match command.json {
                    true => print_json(&described(&key, true))?,
                    false => print(&show::new_api_key(&key))?,
                }
            }
            KeyCommand::List(command) => {
                let keys = keys.list()?;
                let all = keys.iter().map(|key| described(key, false));
                match command.json {
                    true => print_json(&json!({ "keys": all.collect::<Vec<_>>() }))?,
                    false => print(&show::api_keys(&keys, Style::of_stdout()))?,
                }
            }
            KeyCommand::Delete(command) => {
                let key = keys.delete(&command.key)?;
                tell(&format!("deleted access key {} ({})\n", key.name, key.id));
            }
        }
        Ok(Answer::Yes)
    }
}

/// The secret stands in the answer of its making alone.
fn described(key: &Key, with_secret: bool) -> Value {
    let mut value = json!({
        "name": key.name,
        "access_key_id": key.id,
        "read_only": key.read_only,
        "created_unix_time_s": key.created_unix_time_s,
    });
    if with_secret && let Some(fields) = value.as_object_mut() {
        fields.insert("secret_access_key".to_owned(), key.secret.clone().into());
    }
    value
}
