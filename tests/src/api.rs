//! A daemon that serves the EC2 API, and real clients of it on the same machine.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::daemon::Daemon;
use crate::lab::{Host, Lab, Pair};
use crate::sg::Sg;

/// Where it serves; every machine of the lab has a loopback of its own.
pub const ENDPOINT: &str = "http://127.0.0.1:8780";

const CONFIG: &str = "[api]\nlisten = [\"127.0.0.1:8780\"]\naccount = \"123456789012\"\n";

/// Two machines, one of which serves the API.
#[derive(Debug)]
pub struct Api {
    /// The machines; `host` serves.
    pub pair: Pair,
    /// What serves.
    pub sg: Sg,
    /// The process.
    pub daemon: Daemon,
    /// A key that may change everything.
    pub key: Key,
}

/// An access key.
#[derive(Clone, Debug)]
pub struct Key {
    /// What requests name it by.
    pub id: String,
    /// What they are signed with.
    pub secret: String,
}

impl Api {
    /// Serves with the usual configuration.
    pub fn serve() -> Result<Self> {
        Self::serve_with("")
    }

    /// Serves with more configuration.
    pub fn serve_with(config: &str) -> Result<Self> {
        let pair = Lab::pair()?;
        let sg = Sg::on(&pair.host)?;
        let key = Key::create(&sg, &["tests"])?;
        let daemon = Daemon::start(&sg, &format!("{CONFIG}{config}"))?;
        Ok(Self {
            pair,
            sg,
            daemon,
            key,
        })
    }

    /// Runs a client to its end, and returns what it printed.
    pub fn run(&self, program: &Path, arguments: &[&str]) -> Result<String> {
        self.run_with(&self.key, program, arguments)
    }

    /// As [`Self::run`], with another key.
    pub fn run_with(&self, key: &Key, program: &Path, arguments: &[&str]) -> Result<String> {
        let host: &Host = &self.pair.host;
        let mut words: Vec<String> = key.environment().into();
        words.push(program.to_string_lossy().into_owned());
        words.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let ran = host.run("env", &words);
        ran.with_context(|| format!("the daemon says:\n{}", self.daemon.log()))
    }

    /// Runs a script of the tests with boto3; it fails where one of its assertions does.
    pub fn python(&self, clients: &Clients, script: &str, arguments: &[&str]) -> Result<String> {
        let script = scripts().join(script).to_string_lossy().into_owned();
        let arguments: Vec<&str> = [script.as_str()]
            .into_iter()
            .chain(arguments.iter().copied())
            .collect();
        self.run(&clients.python(), &arguments)
    }

    /// What `aws ec2 …` answers.
    pub fn aws(&self, clients: &Clients, arguments: &[&str]) -> Result<Value> {
        let words = [&["ec2", "--output", "json"], arguments].concat();
        let text = self.run(&clients.aws(), &words)?;
        match text.trim() {
            "" => Ok(Value::Null),
            text => serde_json::from_str(text).context("the command line's JSON"),
        }
    }
}

impl Key {
    /// Makes one, with the words after `api key create`.
    pub fn create(sg: &Sg, words: &[&str]) -> Result<Self> {
        let made = sg.json(&[&["api", "key", "create"], words].concat())?;
        let text = |name: &str| {
            let text = made[name].as_str().map(str::to_owned);
            text.with_context(|| format!("no {name}: {made}"))
        };
        Ok(Self {
            id: text("access_key_id")?,
            secret: text("secret_access_key")?,
        })
    }

    fn environment(&self) -> [String; 8] {
        [
            format!("AWS_ACCESS_KEY_ID={}", self.id),
            format!("AWS_SECRET_ACCESS_KEY={}", self.secret),
            format!("AWS_ENDPOINT_URL={ENDPOINT}"),
            "AWS_DEFAULT_REGION=eu-west-1".to_owned(),
            "AWS_REGION=eu-west-1".to_owned(),
            // Nothing of the user's may be read, and nobody else asked.
            "AWS_CONFIG_FILE=/dev/null".to_owned(),
            "AWS_SHARED_CREDENTIALS_FILE=/dev/null".to_owned(),
            "AWS_EC2_METADATA_DISABLED=true".to_owned(),
        ]
    }
}

/// Where the tests' scripts for clients are.
pub fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api/clients")
}

/// The clients that `cargo xtask setup` installs.
#[derive(Clone, Debug)]
pub struct Clients(PathBuf);

impl Clients {
    /// Those there are; without them a line says what is not proven.
    pub fn find(what: &str) -> Option<Self> {
        let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/clients");
        let found = Self(clients);
        match found.python().is_file() && found.terraform().is_file() {
            true => Some(found),
            false => {
                println!("skipped: {what}: there are no clients; `cargo xtask setup` gets them");
                None
            }
        }
    }

    fn python(&self) -> PathBuf {
        self.0.join("python/bin/python")
    }

    fn aws(&self) -> PathBuf {
        self.0.join("python/bin/aws")
    }

    /// Terraform itself.
    pub fn terraform(&self) -> PathBuf {
        self.0.join("terraform/terraform")
    }

    /// The folder that has its providers.
    pub fn providers(&self) -> PathBuf {
        self.0.join("terraform/providers")
    }
}
