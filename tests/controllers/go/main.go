// A QuickCMD v1 controller, as one is written after the agent's v1 documentation: it knows nothing of what this agent has
// added. The payload's members come in the order of the struct, as json.Marshal writes them (with < > & as \u003c
// \u003e \u0026, nil maps as null); reads carry no credentials; TLS is self-signed and not checked; the stream is opened
// without an Origin header. Prints what it saw as one line of JSON.
//
//	go run main.go -url https://127.0.0.1:8443 -controller controller-1 -command 'echo hello'   # the secret: $QUICKCMD_SECRET
package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// JobPayload is what is signed.
type JobPayload struct {
	JobID             string                 `json:"job_id"`
	Prompt            string                 `json:"prompt"`
	Command           string                 `json:"command"`
	CandidateMetadata map[string]interface{} `json:"candidate_metadata"`
	PluginMetadata    map[string]interface{} `json:"plugin_metadata"`
	RequiredScopes    []string               `json:"required_scopes"`
	SnapshotMetadata  string                 `json:"snapshot_metadata"`
	TTL               int64                  `json:"ttl"`
	Timestamp         int64                  `json:"timestamp"`
	ControllerID      string                 `json:"controller_id"`
}

// JobSignature goes beside it.
type JobSignature struct {
	Signature string `json:"signature"`
	Algorithm string `json:"algorithm"`
}

// SignedJob is the body of a submission.
type SignedJob struct {
	Payload   JobPayload   `json:"payload"`
	Signature JobSignature `json:"signature"`
}

// SubmitResponse is the answer to it.
type SubmitResponse struct {
	JobID  string `json:"job_id"`
	Status string `json:"status"`
}

// JobResult is what a job came to.
type JobResult struct {
	JobID      string    `json:"job_id"`
	Status     string    `json:"status"`
	SandboxID  string    `json:"sandbox_id"`
	ExitCode   int       `json:"exit_code"`
	Stdout     string    `json:"stdout"`
	Stderr     string    `json:"stderr"`
	StartTime  time.Time `json:"start_time"`
	EndTime    time.Time `json:"end_time"`
	DurationMS int64     `json:"duration_ms"`
	Error      string    `json:"error,omitempty"`
	Snapshot   string    `json:"snapshot,omitempty"`
}

// JobStatus is the answer to a poll.
type JobStatus struct {
	JobID  string     `json:"job_id"`
	Status string     `json:"status"`
	Result *JobResult `json:"result"`
}

// LogFrame is one message of the stream.
type LogFrame struct {
	JobID     string    `json:"job_id"`
	Timestamp time.Time `json:"timestamp"`
	Stream    string    `json:"stream"`
	Data      string    `json:"data"`
	Final     bool      `json:"final"`
}

// Seen is what this program prints.
type Seen struct {
	Submitted      string     `json:"submitted"`
	Status         string     `json:"status"`
	Result         *JobResult `json:"result"`
	StreamedStdout string     `json:"streamed_stdout"`
	StreamedStderr string     `json:"streamed_stderr"`
	Frames         int        `json:"frames"`
	Final          bool       `json:"final"`
}

type controller struct {
	base   string
	id     string
	secret []byte
	http   *http.Client
	tls    *tls.Config
}

func sign(secret []byte, payload JobPayload) (string, error) {
	data, err := json.Marshal(payload)
	if err != nil {
		return "", err
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write(data)
	return hex.EncodeToString(mac.Sum(nil)), nil
}

func (c *controller) submit(command string) (SubmitResponse, error) {
	var answer SubmitResponse
	random := make([]byte, 8)
	if _, err := rand.Read(random); err != nil {
		return answer, err
	}
	now := time.Now().Unix()
	payload := JobPayload{
		JobID:             "job-" + hex.EncodeToString(random),
		Prompt:            "a v1 controller's <job> & more",
		Command:           command,
		CandidateMetadata: map[string]interface{}{"risk_level": "safe", "confidence": 0.95, "large": 1e21},
		RequiredScopes:    []string{},
		TTL:               now + 300,
		Timestamp:         now,
		ControllerID:      c.id,
	}
	signature, err := sign(c.secret, payload)
	if err != nil {
		return answer, err
	}
	job := SignedJob{Payload: payload, Signature: JobSignature{Signature: signature, Algorithm: "HMAC-SHA256"}}
	body, err := json.Marshal(job)
	if err != nil {
		return answer, err
	}
	response, err := c.http.Post(c.base+"/api/v1/jobs", "application/json", bytes.NewReader(body))
	if err != nil {
		return answer, err
	}
	return answer, decode(response, http.StatusAccepted, &answer)
}

func (c *controller) poll(id string) (JobStatus, error) {
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		var status JobStatus
		response, err := c.http.Get(c.base + "/api/v1/jobs/" + id)
		if err != nil {
			return status, err
		}
		if err := decode(response, http.StatusOK, &status); err != nil {
			return status, err
		}
		if status.Status == "completed" || status.Status == "failed" {
			return status, nil
		}
		if time.Now().After(deadline) {
			return status, fmt.Errorf("job %s is still %s", id, status.Status)
		}
	}
}

func decode(response *http.Response, expected int, into interface{}) error {
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != expected {
		return fmt.Errorf("%s: %s", response.Status, strings.TrimSpace(string(body)))
	}
	return json.Unmarshal(body, into)
}

// stream reads frames until the final one.
func (c *controller) stream(id string, frame func(LogFrame)) error {
	base, err := url.Parse(c.base)
	if err != nil {
		return err
	}
	socket, err := dial(base.Host, "/api/v1/stream/"+id, c.tls)
	if err != nil {
		return err
	}
	defer socket.close()
	for {
		data, err := socket.message()
		if err != nil {
			return err
		}
		var next LogFrame
		if err := json.Unmarshal(data, &next); err != nil {
			return err
		}
		frame(next)
		if next.Final {
			return nil
		}
	}
}

func run() error {
	base := flag.String("url", "https://127.0.0.1:8443", "the agent")
	id := flag.String("controller", "controller-1", "controller_id")
	command := flag.String("command", "echo hello", "what to run")
	flag.Parse()
	// Self-signed: what the setup script makes.
	config := &tls.Config{InsecureSkipVerify: true}
	c := &controller{
		base:   *base,
		id:     *id,
		secret: []byte(os.Getenv("QUICKCMD_SECRET")),
		http:   &http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: config}},
		tls:    config,
	}
	submitted, err := c.submit(*command)
	if err != nil {
		return fmt.Errorf("submit: %w", err)
	}
	seen := Seen{Submitted: submitted.Status}
	streamed := make(chan error, 1)
	go func() {
		streamed <- c.stream(submitted.JobID, func(frame LogFrame) {
			seen.Frames++
			switch frame.Stream {
			case "stdout":
				seen.StreamedStdout += frame.Data
			case "stderr":
				seen.StreamedStderr += frame.Data
			}
			seen.Final = seen.Final || frame.Final
		})
	}()
	status, err := c.poll(submitted.JobID)
	if err != nil {
		return fmt.Errorf("poll: %w", err)
	}
	if err := <-streamed; err != nil {
		return fmt.Errorf("stream: %w", err)
	}
	seen.Status, seen.Result = status.Status, status.Result
	return json.NewEncoder(os.Stdout).Encode(seen)
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
