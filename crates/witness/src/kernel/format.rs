//! Reads which reasons the tracepoint of this kernel can give.

/// Which reasons the tracepoint of this kernel can give, as its `format` file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Format {
    has_reason: bool,
    tells_closes_apart: bool,
}

impl Format {
    /// Reads the text of a `format` file. A text of another kind has no reasons.
    pub fn parse(text: &str) -> Self {
        let mut fields = text.lines().map(str::trim).filter_map(|line| {
            let field = line.strip_prefix("field:")?.split(';').next()?;
            field.split_whitespace().next_back()
        });
        let has_reason = fields.any(|name| name == "reason");
        // A table of names: ` { 0, "A" }, { 1, "B" })`.
        let table = text.split("__print_symbolic(REC->reason,").nth(1);
        let mut names = table.iter().flat_map(|table| table.split(')').next());
        let tells_closes_apart =
            has_reason && names.any(|names| names.contains("\"TCP_ABORT_ON_CLOSE\""));
        Self {
            has_reason,
            tells_closes_apart,
        }
    }

    /// Whether the lines have a `reason` at all (not before Linux 6.10).
    pub fn has_reason(&self) -> bool {
        self.has_reason
    }

    /// Whether resets by `close()` have a reason of their own (since Linux 6.12); before that they are
    /// `NOT_SPECIFIED`.
    pub fn tells_closes_apart(&self) -> bool {
        self.tells_closes_apart
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: &str = "name: tcp_send_reset\nID: 2280\nformat:\n\
        \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
        \tfield:int state;\toffset:24;\tsize:4;\tsigned:1;\n";

    #[test]
    fn a_format_with_a_table_of_reasons_is_read() {
        let text = format!(
            "{HEAD}\tfield:enum sk_rst_reason reason;\toffset:28;\tsize:4;\tsigned:0;\n\n\
             print fmt: \"state=%s reason=%s\", __print_symbolic(REC->state, {{ 1, \"TCP_CLOSE\" }}), \
             __print_symbolic(REC->reason, {{ 0, \"NOT_SPECIFIED\" }}, {{ 11, \"TCP_ABORT_ON_CLOSE\" }})\n"
        );
        let format = Format::parse(&text);
        assert!(format.has_reason() && format.tells_closes_apart());
    }

    #[test]
    fn older_kernels_have_no_reason_or_not_every_one() {
        let without = Format::parse(HEAD);
        assert!(!without.has_reason() && !without.tells_closes_apart());
        let few = format!(
            "{HEAD}\tfield:enum sk_rst_reason reason;\toffset:28;\n\
             print fmt: \"\", __print_symbolic(REC->reason, {{ 1, \"NO_SOCKET\" }})"
        );
        let few = Format::parse(&few);
        assert!(few.has_reason() && !few.tells_closes_apart());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_of_formats_panic(text in "(field:|__print_symbolic\\(REC->reason,|[ {}\",;\n]|\\PC){0,40}") {
            Format::parse(&text);
        }
    }
}
