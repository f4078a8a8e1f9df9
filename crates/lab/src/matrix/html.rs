use super::cells;
use super::report::Matrix;

const STYLE: &str = "body { font: 15px/1.4 system-ui, sans-serif; margin: 2em; color: #222; background: #fff }\n\
    table { border-collapse: collapse; margin-bottom: 1em }\n\
    th, td { padding: .25em .6em; border-bottom: 1px solid #ccc; text-align: left; white-space: nowrap }\n\
    th.up { writing-mode: vertical-rl; transform: rotate(180deg); font-weight: normal }\n\
    td.mark { text-align: center }\n\
    .pass { background: #d9f2d9 } .harmless { background: #fff3c4 }\n\
    .loses { background: #f8d0d0; font-weight: bold } .unknown { color: #777 }\n";

/// The matrix as a page that needs nothing else.
pub(super) fn html(matrix: &Matrix) -> String {
    let mut text = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<title>rstlab matrix, {date}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<h1>rstlab matrix</h1>\n<p>{date}, {:.0} s</p>\n",
        matrix.seconds,
        date = escaped(&matrix.date),
    );
    if !matrix.servers.is_empty() {
        text += &servers(matrix);
    }
    if !matrix.proxies.is_empty() {
        text += &proxies(matrix);
    }
    let problems = cells::problems(matrix);
    if !problems.is_empty() {
        text += "<ul>\n";
        for (name, problem) in problems {
            text += &format!("<li>{}: {}</li>\n", escaped(&name), escaped(&problem));
        }
        text += "</ul>\n";
    }
    text + "</body>\n</html>\n"
}

fn servers(matrix: &Matrix) -> String {
    let mut text = "<table>\n<tr>".to_owned();
    for name in ["server", "version", "verdict", "lost", "reads on"] {
        text += &format!("<th>{name}</th>");
    }
    for name in cells::scenarios(matrix) {
        text += &format!("<th class=\"up\">{name}</th>");
    }
    text += "</tr>\n";
    for row in &matrix.servers {
        text += "<tr>";
        for cell in cells::server(row) {
            text += &format!("<td>{}</td>", escaped(&cell));
        }
        for scenario in row.check.iter().flat_map(|report| &report.scenarios) {
            let name = scenario.verdict.as_str();
            let class = if name.contains(' ') { "unknown" } else { name };
            text += &format!(
                "<td class=\"mark {class}\" title=\"{}: {}\">{}</td>",
                scenario.name,
                escaped(&scenario.sentence),
                cells::mark(scenario.verdict)
            );
        }
        text += "</tr>\n";
    }
    text + &format!("</table>\n<p>{}</p>\n", escaped(&cells::legend(matrix)))
}

fn proxies(matrix: &Matrix) -> String {
    let mut text = "<table>\n<tr><th>proxy</th><th>version</th>".to_owned();
    for size in cells::sizes(matrix) {
        text += &format!("<th>{size}</th>");
    }
    text += "</tr>\n";
    for row in &matrix.proxies {
        let cells = cells::proxy(row);
        let cells: Vec<_> = cells
            .iter()
            .map(|cell| format!("<td>{}</td>", escaped(cell)))
            .collect();
        text += &format!("<tr>{}</tr>\n", cells.concat());
    }
    text + &format!("</table>\n<p>{}</p>\n", cells::PROXIES)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
