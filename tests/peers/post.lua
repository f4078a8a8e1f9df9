-- For wrk -s: POST instead of GET, with a body of 22 bytes.
wrk.method = "POST"
wrk.body = string.rep("b", 22)
