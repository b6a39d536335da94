package main

import (
	"bufio"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"time"
)

// socket is a small WebSocket client (RFC 6455), so that this program needs nothing but Go's own library.
type socket struct {
	conn   *tls.Conn
	reader *bufio.Reader
}

func dial(host, path string, config *tls.Config) (*socket, error) {
	conn, err := tls.Dial("tcp", host, config)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		return nil, err
	}
	random := make([]byte, 16)
	if _, err := rand.Read(random); err != nil {
		return nil, err
	}
	key := base64.StdEncoding.EncodeToString(random)
	_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", path, host, key)
	if err != nil {
		return nil, err
	}
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(response.Body)
		return nil, fmt.Errorf("%s: %s", response.Status, body)
	}
	accept := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	if response.Header.Get("Sec-WebSocket-Accept") != base64.StdEncoding.EncodeToString(accept[:]) {
		return nil, fmt.Errorf("that is no WebSocket")
	}
	return &socket{conn, reader}, nil
}

// message gives the next text message; pings are answered on the way.
func (s *socket) message() ([]byte, error) {
	var text []byte
	for {
		var head [2]byte
		if _, err := io.ReadFull(s.reader, head[:]); err != nil {
			return nil, err
		}
		length := uint64(head[1] & 0x7f)
		switch length {
		case 126:
			var short uint16
			if err := binary.Read(s.reader, binary.BigEndian, &short); err != nil {
				return nil, err
			}
			length = uint64(short)
		case 127:
			if err := binary.Read(s.reader, binary.BigEndian, &length); err != nil {
				return nil, err
			}
		}
		data := make([]byte, length)
		if _, err := io.ReadFull(s.reader, data); err != nil {
			return nil, err
		}
		switch head[0] & 0x0f {
		case 0, 1:
			text = append(text, data...)
			if head[0]&0x80 != 0 {
				return text, nil
			}
		case 8:
			return nil, fmt.Errorf("closed before the final frame: %v", data)
		case 9:
			if err := s.send(10, data); err != nil {
				return nil, err
			}
		}
	}
}

func (s *socket) send(kind byte, data []byte) error {
	frame := []byte{0x80 | kind, 0x80 | byte(len(data)), 0, 0, 0, 0}
	if _, err := rand.Read(frame[2:6]); err != nil {
		return err
	}
	for at, b := range data {
		frame = append(frame, b^frame[2+at%4])
	}
	_, err := s.conn.Write(frame)
	return err
}

func (s *socket) close() {
	_ = s.send(8, []byte{0x03, 0xe8})
	_ = s.conn.Close()
}
