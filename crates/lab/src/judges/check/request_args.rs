//! The options that say what a check's requests are.

use std::fs;

use data_encoding::BASE64;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue};
use rstlab_cli::Settings;

use super::plan::{CheckPlan, method};
use crate::shared::given::given;

/// The longest `--data`, in bytes: no scenario with a fixed size has to cut it.
const MAX_DATA: usize = 64 * 1024;

/// The type of `--data` without `--content-type`, as in curl.
const FORM: &str = "application/x-www-form-urlencoded";

/// Fields that say where a message ends and whether the connection stays: the scenarios set them.
const SET_BY_SCENARIOS: [&str; 5] = [
    "connection",
    "content-length",
    "expect",
    "trailer",
    "transfer-encoding",
];

/// What the requests are.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct RequestArgs {
    /// Method of the requests; get-with-body uses GET.
    #[arg(long, default_value = "POST")]
    method: String,

    /// A field added to each request, 'Name: value'; can be given again.
    #[arg(long, value_name = "FIELD")]
    header: Vec<String>,

    /// Log in with Basic authentication (RFC 7617): adds the field Authorization.
    #[arg(long, value_name = "NAME:PASSWORD")]
    user: Option<String>,

    /// The requests' body, or @FILE with it, whose line ends are left out as in curl. A scenario with a larger body adds
    /// blanks. The plain request has this body, too. In place of --body-sizes
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["body_sizes", "through"])]
    data: Option<String>,

    /// Adds the field Content-Type [default with --data: application/x-www-form-urlencoded]
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,

    /// Send HTTP/1.0 requests, without the scenarios that need HTTP/1.1.
    #[arg(long = "http1.0", visible_alias = "http-1.0")]
    http1_0: bool,

    /// The path of uploads that the server answers before it has read them; early-answer and expect-continue use it
    /// [default: a path that does not exist]
    #[arg(long, value_name = "PATH", conflicts_with = "through")]
    path_404: Option<String>,
}

impl RequestArgs {
    /// Gives the plan its requests; `None` if a setting is bad.
    pub(super) fn apply(&self, settings: &mut Settings, plan: CheckPlan) -> Option<CheckPlan> {
        let method = settings.read("--method", &self.method, "POST, PUT, GET, ...", method);
        let allowed = "'Name: value', but none that the scenarios set (Connection, Content-Length, Expect, Trailer, \
                       Transfer-Encoding)";
        let headers = self.header.iter();
        let headers = headers.map(|text| settings.read("--header", text, allowed, field));
        // Every field is read, so that every bad one is named.
        let headers: Vec<_> = headers.collect();
        let allowed = "a name, a colon and a password";
        let user = self.user.as_deref();
        let user = user.map(|text| settings.read("--user", text, allowed, authorization));
        let content_type = self.content_type.as_deref();
        let content_type = content_type.map(|text| {
            let allowed = "a field's value, such as application/json";
            settings.read("--content-type", text, allowed, |text| {
                field(&format!("content-type:{text}"))
            })
        });
        let allowed =
            format!("a text, or @FILE with a file that can be read; 1 to {MAX_DATA} bytes");
        let data = self.data.as_deref();
        let data = data.map(|text| settings.read("--data", text, &allowed, data_of));
        let path = self.path_404.as_deref();
        let path =
            path.map(|text| settings.read("--path-404", text, "a path, such as /upload", path_of));

        let mut headers = headers.into_iter().collect::<Option<Vec<_>>>()?;
        let body = given(data)?;
        let of_data = body
            .is_some()
            .then(|| ("content-type".to_owned(), FORM.to_owned()));
        let added = [given(user)?, given(content_type)?.or(of_data)];
        for (name, value) in added.into_iter().flatten() {
            if headers.iter().all(|(given, _)| *given != name) {
                headers.push((name, value));
            }
        }
        Some(CheckPlan {
            method: method?,
            headers,
            body_sizes: match &body {
                Some(body) => vec![body.len() as u64],
                None => plan.body_sizes,
            },
            body: body.unwrap_or_default(),
            http_1_0: self.http1_0,
            early_path: given(path)?,
            ..plan
        })
    }
}

/// A field's name, in lower case, and its value.
fn field(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once(':')?;
    let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
    let value = HeaderValue::from_str(value.trim()).ok()?;
    let is_set = SET_BY_SCENARIOS.contains(&name.as_str());
    let value = value.to_str().ok()?.to_owned();
    (!is_set).then(|| (name.to_string(), value))
}

/// The field that logs in (RFC 7617 §2).
fn authorization(text: &str) -> Option<(String, String)> {
    text.contains(':').then_some(())?;
    let value = format!("Basic {}", BASE64.encode(text.as_bytes()));
    Some(("authorization".to_owned(), value))
}

/// The body that `--data` means; of a file, curl leaves out line ends and zero bytes.
fn data_of(text: &str) -> Option<Vec<u8>> {
    let bytes = match text.strip_prefix('@') {
        Some(path) => {
            let mut bytes = fs::read(if path == "-" { "/dev/stdin" } else { path }).ok()?;
            bytes.retain(|byte| !matches!(byte, b'\r' | b'\n' | 0));
            bytes
        }
        None => text.as_bytes().to_vec(),
    };
    (1..=MAX_DATA).contains(&bytes.len()).then_some(bytes)
}

/// A request target in origin form (RFC 9112 §3.2.1).
fn path_of(text: &str) -> Option<String> {
    let path: PathAndQuery = text.starts_with('/').then(|| text.parse().ok())??;
    Some(path.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::judges::check::script::RequestHead;
    use crate::shared::target::Target;

    #[derive(Parser)]
    struct Cli {
        #[arg(long)]
        body_sizes: Option<String>,
        #[arg(long)]
        through: Option<String>,
        #[command(flatten)]
        args: RequestArgs,
    }

    fn plan(flags: &[&str]) -> Option<CheckPlan> {
        let cli = Cli::try_parse_from([&["check"], flags].concat()).unwrap();
        let target = Target::from(std::net::SocketAddr::from(([127, 0, 0, 1], 80)));
        assert_eq!((cli.body_sizes, cli.through), (None, None));
        cli.args
            .apply(&mut Settings::default(), CheckPlan::new(target))
    }

    fn head(flags: &[&str]) -> String {
        let plan = plan(flags).unwrap();
        String::from_utf8(RequestHead::new(&plan).bytes()).unwrap()
    }

    #[test]
    fn the_options_of_curl_make_the_requests_that_curl_makes() {
        for (flags, part) in [
            // The example of RFC 7617 §2.
            (
                &["--user", "Aladdin:open sesame"][..],
                "\r\nauthorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n",
            ),
            (
                &["--data", "a=b"],
                "\r\ncontent-type: application/x-www-form-urlencoded\r\n",
            ),
            (
                &["--data", "{}", "--content-type", "application/json"],
                "\r\ncontent-type: application/json\r\n",
            ),
            (
                &["--data", "{}", "--header", "Content-Type: text/plain"],
                "\r\ncontent-type: text/plain\r\n",
            ),
            (&["--http1.0"], "POST / HTTP/1.0\r\n"),
        ] {
            let head = head(flags);
            assert!(head.contains(part), "{head}");
        }
        let both = head(&["--user", "a:b", "--header", "Authorization: Bearer x"]);
        assert_eq!(both.matches("authorization").count(), 1, "{both}");
    }

    #[test]
    fn data_is_a_text_or_a_file_without_its_line_ends() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("body");
        fs::write(&file, "{\"a\":\r\n1}\n").unwrap();
        let of_file = plan(&["--data", &format!("@{}", file.display())]).unwrap();
        assert_eq!(of_file.body, b"{\"a\":1}");
        assert_eq!(of_file.body_sizes, [7]);
        assert_eq!(plan(&["--data", "a\nb"]).unwrap().body, b"a\nb");
    }

    #[test]
    fn bad_requests_are_refused() {
        for flags in [
            ["--user", "name"],
            ["--data", ""],
            ["--data", "@/nowhere/at/all"],
            ["--content-type", "a\nb"],
            ["--path-404", "no-slash"],
            ["--path-404", "/a b"],
        ] {
            assert!(plan(&flags).is_none(), "{flags:?}");
        }
    }
}
