// SPDX-License-Identifier: Apache-2.0

package resident

import (
	"os"
	"strconv"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"
)

// maxComplaint bounds what is kept of the resident's stderr.
const maxComplaint = 4096

// complaints are what the resident writes to stderr: nothing, unless it crashes.
type complaints struct {
	fifo *os.File
	done chan struct{} // closed when text is whole
	text []byte
}

// listen begins to read the FIFO, until close. That it is open for writing too keeps the delegate's end alive.
func listen(path string) (*complaints, error) {
	fifo, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	c := &complaints{fifo: fifo, done: make(chan struct{})}
	go c.read()
	return c, nil
}

// read keeps the beginning, where Go writes the reason, and reads on so that nothing waits for us.
func (c *complaints) read() {
	defer close(c.done)
	buf := make([]byte, maxComplaint)
	for {
		n, err := c.fifo.Read(buf)
		c.text = append(c.text, buf[:min(n, maxComplaint-len(c.text))]...)
		if err != nil {
			return
		}
	}
}

// close ends the reading and logs what was read, as the words of a stranger.
func (c *complaints) close(container string) {
	c.fifo.Close()
	<-c.done
	if len(c.text) > 0 {
		log.L.WithField("container", container).WithField("stderr", strconv.QuoteToASCII(string(c.text))).
			Warn("the supervisor in the container complained")
	}
}
