// The app behind Node's http: it ignores the request's body, or reads it on the path /read.
const http = require('http');

const response = Buffer.alloc(614400, 'x');

function answer(to) {
    to.setHeader('Content-Length', response.length);
    to.end(response);
}

const server = http.createServer((request, to) => {
    if (request.url === '/read') {
        request.on('end', () => answer(to));
        request.resume();
    } else {
        answer(to);
    }
});

// Port 0 takes a free port, which the line names.
server.listen(Number(process.argv[2]), '127.0.0.1', () => {
    console.error(`listening at http://127.0.0.1:${server.address().port} `);
});
