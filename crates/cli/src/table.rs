//! The table of a program's settings: one declaration each for flag, variable, help, documentation and parsing.

use std::fmt::Write as _;

use clap::{Arg, ArgMatches, Command};

use crate::allowed::Allowed;

/// One row of a program's table of settings; [`settings!`](crate::settings) makes it.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The field of the program's settings that holds the value.
    pub name: &'static str,
    /// The variable of the environment.
    pub variable: String,
    /// The sentence of the help.
    pub help: String,
    /// The text of its default value; may be empty.
    pub default: &'static str,
    /// Says which values are allowed.
    pub allowed: String,
    /// The words whose meaning the help explains, each with its meaning.
    pub meanings: Vec<(String, String)>,
    /// Whether the setting may change while the program runs; a new value holds from the next request on.
    pub live: bool,
    value_name: String,
}

/// Declares the settings of a program, one row each:
///
/// ```text
/// /// <help>
/// <field>: <type> = <text of the default>, <what is allowed>, <live or fixed> [, variable <name>];
/// ```
///
/// A `live` setting may change while the program runs, a `fixed` one may not. The flag is the field's name; the variable
/// is that name behind the program's, unless the row names another `variable`. Fields under `beside` are no settings:
/// they begin as their type's `Default`.
///
/// Yields the struct, its `Default` (the defaults of the table), `settings()` (the table), and `read()` (the checked
/// values of a command line).
#[macro_export]
macro_rules! settings {
    (
        $(#[$meta:meta])*
        $vis:vis struct $Config:ident for $program:literal {
            $(
                $(#[doc = $help:literal])+
                $field:ident: $Type:ty = $default:literal, $allowed:expr, $when:ident
                $(, variable $variable:literal)?;
            )+
            $(beside {
                $( $(#[$beside_meta:meta])* $beside:ident: $Beside:ty; )+
            })?
        }
    ) => {
        $(#[$meta])*
        $vis struct $Config {
            $( $(#[doc = $help])+ pub $field: $Type, )+
            $($( $(#[$beside_meta])* pub $beside: $Beside, )+)?
        }

        impl $Config {
            /// The table of all settings, in the order of the help.
            $vis fn settings() -> Vec<$crate::Setting> {
                vec![$(
                    $crate::Setting::new(
                        $program,
                        stringify!($field),
                        &[$($help),+],
                        $default,
                        &$allowed,
                        $crate::settings!(@is_live $when),
                    )
                    $(.with_variable($variable))?
                ),+]
            }

            /// The settings of a command line and its environment, checked.
            ///
            /// # Errors
            /// Names every bad value at once, with what is allowed.
            $vis fn read(matches: &$crate::clap::ArgMatches) -> Result<Self, $crate::BadSettings> {
                Self::read_texts(|setting| setting.text(matches))
            }

            fn read_texts<'a>(
                text: impl Fn(&$crate::Setting) -> &'a str,
            ) -> Result<Self, $crate::BadSettings> {
                let mut settings = $crate::Settings::default();
                let mut rows = Self::settings().into_iter();
                let mut next = || rows.next().map_or_else(Default::default, |row| {
                    let text = text(&row);
                    (row.variable, text)
                });
                $(
                    let (variable, text) = next();
                    let $field = settings.check(&variable, text, $allowed);
                )+
                let all = || Some(Self {
                    $( $field: $field?, )+
                    $($( $beside: Default::default(), )+)?
                });
                settings.finish(all())
            }
        }

        /// The defaults of the table, whatever the environment says.
        impl Default for $Config {
            fn default() -> Self {
                Self::read_texts(|setting| setting.default).expect("each default is allowed")
            }
        }
    };
    (@is_live live) => { true };
    (@is_live fixed) => { false };
}

impl Setting {
    /// The setting `name` of the program whose variables begin with `program`.
    pub fn new<P>(
        program: &str,
        name: &'static str,
        help: &[&str],
        default: &'static str,
        allowed: &Allowed<P>,
        live: bool,
    ) -> Self {
        let lines: Vec<&str> = help.iter().map(|line| line.trim()).collect();
        let upper = name.to_uppercase();
        Self {
            name,
            variable: format!("{program}_{upper}"),
            help: lines.join(" ").trim_end_matches('.').to_owned(),
            default,
            allowed: allowed.text.clone(),
            meanings: allowed.meanings.clone(),
            live,
            value_name: allowed.value_name.map_or(upper, str::to_owned),
        }
    }

    /// Replaces the variable's name.
    #[must_use]
    pub fn with_variable(mut self, variable: &str) -> Self {
        variable.clone_into(&mut self.variable);
        self
    }

    /// The setting's flag, without the dashes.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// The flag that is named like the variable, without the dashes.
    fn full_flag(&self) -> String {
        self.variable.to_lowercase().replace('_', "-")
    }

    /// The text of its value: the command line's, the environment's, or the default.
    pub fn text<'a>(&self, matches: &'a ArgMatches) -> &'a str {
        let text = matches.get_one::<String>(self.name);
        text.map_or("", String::as_str)
    }

    fn arg(&self) -> Arg {
        let mut arg = Arg::new(self.name)
            .long(self.flag())
            .env(&self.variable)
            .value_name(&self.value_name)
            .default_value(self.default)
            .hide_default_value(self.default.is_empty())
            // The subcommand `health` has the same meaning for these.
            .global(matches!(self.name, "listen" | "log" | "log_format"))
            .help(&self.help);
        if self.full_flag() != self.flag() {
            arg = arg.alias(self.full_flag());
        }
        if !self.meanings.is_empty() {
            let meanings = self.meanings.iter();
            let list = list(meanings.map(|(word, meaning)| (word.as_str(), meaning.as_str())));
            arg = arg.long_help(format!("{}.\n\n{list}", self.help));
        }
        arg
    }
}

/// Words and their meanings, aligned, one below the other.
pub fn list<'a>(words: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let words: Vec<_> = words.into_iter().collect();
    let longest = words.iter().map(|(word, _)| word.len()).max().unwrap_or(0);
    let indent = format!("\n{:longest$}    ", "");
    let item = |(word, meaning): &(&str, &str)| {
        let lines: Vec<&str> = meaning.lines().map(str::trim).collect();
        format!("  {word:longest$}  {}", lines.join(&indent))
    };
    words.iter().map(item).collect::<Vec<_>>().join("\n")
}

/// Adds to `command` a flag for each setting, the subcommand `health`, and the help's text about all settings.
pub fn with_settings(command: Command, settings: &[Setting]) -> Command {
    let example = settings.iter().find(|setting| setting.live);
    let ways = example.map_or_else(String::new, |setting| {
        let (flag, full, variable) = (setting.flag(), setting.full_flag(), &setting.variable);
        format!(
            "Each setting can be given as a flag (--{flag}), as a flag of its full name (--{full}) or in the \
             environment ({variable}); a flag wins.\n"
        )
    });
    let after = "Times have a unit: 500us, 10ms, 2s. Bytes may have one: 614400, 64KiB, 10GB.\n\
                 Exit codes: 0 stopped by SIGTERM or SIGINT, 1 cannot listen, no such witness, or a \
                 second signal, 2 bad settings.";
    command
        .args(settings.iter().map(Setting::arg))
        .subcommand(
            Command::new("health").about(
                "Ask the program on --listen whether it answers: exit code 0 if so, 1 if not",
            ),
        )
        .after_help(ways + after)
}

/// The table as Markdown.
pub fn markdown(settings: &[Setting]) -> String {
    let mut text = "| Variable | Flag | Default | Allowed | Takes effect | Meaning |\n\
                    |---|---|---|---|---|---|\n"
        .to_owned();
    for setting in settings {
        let default = match setting.default {
            "" => "none".to_owned(),
            default => format!("`{default}`"),
        };
        let takes_effect = if setting.live {
            "at the next request"
        } else {
            "at the start"
        };
        let mut meaning = setting.help.clone();
        for (word, lines) in &setting.meanings {
            let lines: Vec<&str> = lines.lines().map(str::trim).collect();
            let _ = write!(meaning, "<br>`{word}`: {}", lines.join(" "));
        }
        let (allowed, meaning) = (
            setting.allowed.replace('|', "\\|"),
            meaning.replace('|', "\\|"),
        );
        let _ = writeln!(
            text,
            "| `{}` | `--{}` | {default} | {allowed} | {takes_effect} | {meaning} |",
            setting.variable,
            setting.flag()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allowed::{byte_limit, bytes, choice, time};
    use std::time::Duration;

    crate::settings! {
        /// A program with three settings.
        #[derive(Debug, PartialEq, Eq)]
        struct TestConfig for "TEST" {
            /// Pause between
            /// two writes.
            write_gap: Duration = "5ms", time(), live;

            /// What to do with a body.
            mode: char = "b", choice([("a", 'A'), ("b", 'B')]).meaning([("a", "one\n two | three"), ("b", "four")]), fixed;

            /// Largest body.
            most: Option<u64> = "0", byte_limit(), fixed, variable "BODY_BYTES";

            beside {
                /// Not a setting.
                note: Option<&'static str>;
            }
        }
    }

    fn command() -> Command {
        with_settings(Command::new("test").term_width(0), &TestConfig::settings())
    }

    fn read(flags: &[&str]) -> Result<TestConfig, String> {
        let matches = command().get_matches_from([&["test"], flags].concat());
        TestConfig::read(&matches).map_err(|bad| bad.to_string())
    }

    #[test]
    fn a_declared_setting_is_read_from_flag_and_full_name() {
        let config = TestConfig {
            write_gap: Duration::from_millis(5),
            mode: 'B',
            most: None,
            note: None,
        };
        assert_eq!(TestConfig::default(), config);
        assert_eq!(read(&[]), Ok(config));
        let changed = read(&["--test-write-gap=1s", "--mode=a", "--body-bytes=1KiB"]).unwrap();
        assert_eq!(changed.write_gap, Duration::from_secs(1));
        assert_eq!((changed.mode, changed.most), ('A', Some(1024)));
        assert_eq!(
            read(&["--write-gap=1", "--mode=c", "--most=x"]).unwrap_err(),
            format!(
                "3 bad settings\n  \
                 TEST_WRITE_GAP=\"1\"; allowed: {}\n  \
                 TEST_MODE=\"c\"; allowed: a, b\n  \
                 BODY_BYTES=\"x\"; allowed: {}",
                time().text,
                bytes().text
            )
        );
    }

    #[test]
    fn a_declared_setting_is_in_the_help_the_table_and_the_markdown() {
        let rows = TestConfig::settings();
        let names: Vec<_> = rows.iter().map(|row| (row.name, row.live)).collect();
        assert_eq!(
            names,
            [("write_gap", true), ("mode", false), ("most", false)]
        );
        let help = command().render_long_help().to_string();
        for part in [
            "--write-gap <TIME>\n          Pause between two writes\n",
            "[env: TEST_WRITE_GAP=]\n          [default: 5ms]",
            "--mode <MODE>\n          What to do with a body.\n          \n            a  one\n               two | three\n            b  four\n",
            "[env: BODY_BYTES=]",
            "(--write-gap), as a flag of its full name (--test-write-gap) or in the environment (TEST_WRITE_GAP)",
        ] {
            assert!(help.contains(part), "{part} is missing in:\n{help}");
        }
        let table = markdown(&rows);
        for row in [
            format!(
                "| `TEST_WRITE_GAP` | `--write-gap` | `5ms` | {} | at the next request | Pause between two writes |",
                time().text
            ),
            "| `TEST_MODE` | `--mode` | `b` | a, b | at the start | What to do with a body\
             <br>`a`: one two \\| three<br>`b`: four |"
                .to_owned(),
        ] {
            assert!(table.contains(&row), "{row} is missing in:\n{table}");
        }
    }
}
