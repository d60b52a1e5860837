"""An SMTP server that records every byte it gets after DATA and believes everything.

It runs by itself in a container, from this file's text: standard library only. Each
connection's bytes are printed in one line, in hex, when the client has ended.
"""

import socketserver
import sys


class Recorder(socketserver.StreamRequestHandler):
    """One connection: 250 to every line; after 354, raw bytes until the first real end of data."""

    def handle(self) -> None:
        self.connection.settimeout(30)
        self.wfile.write(b"220 sink.test ESMTP\r\n")
        recorded = b""
        while line := self.rfile.readline():
            recorded += line
            verb = line[:4].upper()
            if verb == b"DATA":
                self.wfile.write(b"354 go ahead\r\n")
                recorded += self._data()
                self.wfile.write(b"250 ok\r\n")
            elif verb == b"QUIT":
                self.wfile.write(b"221 sink.test\r\n")
                break
            elif verb == b"EHLO":
                self.wfile.write(b"250-sink.test\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
            else:
                self.wfile.write(b"250 ok\r\n")
        print(recorded.hex(), flush=True)

    def _data(self) -> bytes:
        data = b""
        while not data.endswith(b"\r\n.\r\n") and data != b".\r\n":
            byte = self.rfile.read(1)
            if not byte:
                break
            data += byte
        return data


class Server(socketserver.ThreadingTCPServer):
    """A thread for each connection."""

    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    Server(("0.0.0.0", int(sys.argv[1])), Recorder).serve_forever()
