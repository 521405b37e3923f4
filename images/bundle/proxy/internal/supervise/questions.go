package supervise

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// The kinds of what waits for the operator.
const (
	kindQuestion   = "question"
	kindHost       = "host"
	kindRepository = "repository"
	kindPush       = "push"
	kindRequest    = "request"
)

// What has become of it.
const (
	stateOpen      = "open"
	stateAnswered  = "answered"
	stateRefused   = "refused"
	stateWithdrawn = "withdrawn"
	stateExpired   = "expired"
)

const (
	textMax   = 8_000 // characters of a question or a reason
	keptMax   = 256   // questions with an answer, the oldest of which are forgotten
	roomAfter = 10 * time.Minute
	ageMax    = 24 * time.Hour
)

// A Question is something that the operator has to decide. `What` is what is asked for, by the keys of its kind.
type Question struct {
	ID     string            `json:"id"`
	Kind   string            `json:"kind"`
	Text   string            `json:"text"`
	What   map[string]string `json:"what,omitempty"`
	Reason string            `json:"reason,omitempty"`
	At     time.Time         `json:"at"`
	State  string            `json:"state"`
	Answer string            `json:"answer,omitempty"`
	// When somebody last waited for the answer.
	Waited time.Time `json:"waited"`

	done    chan struct{}
	waiting int
}

// Questions are all that this bottle has asked. They are kept in a directory, a file each, and outlive this daemon.
type Questions struct {
	directory string
	openMax   int

	mutex sync.Mutex
	all   map[string]*Question
	// changed is closed, and made anew, at every change.
	changed chan struct{}
	tell    func(event string, question Question)
}

// openQuestions reads those that an earlier daemon has left. What a proxy held then is held no more.
func openQuestions(directory string, openMax int, tell func(string, Question)) (*Questions, error) {
	q := &Questions{directory: directory, openMax: openMax, all: map[string]*Question{}, changed: make(chan struct{}), tell: tell}
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return nil, err
	}
	names, err := filepath.Glob(filepath.Join(directory, "*.json"))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		question := &Question{done: make(chan struct{})}
		if err == nil {
			err = json.Unmarshal(text, question)
		}
		if err != nil || question.ID+".json" != filepath.Base(name) {
			// A half-written one: the disk was full. Nobody has its id.
			os.Remove(name)
			continue
		}
		q.all[question.ID] = question
		switch {
		case question.State != stateOpen:
			close(question.done)
		case question.Kind == kindRequest:
			q.end(question, stateWithdrawn, "the request is not held any more")
		}
	}
	return q, nil
}

// ask adds a question. The error is in words for whoever asks.
func (q *Questions) ask(kind, text string, what map[string]string, reason string) (*Question, error) {
	for name, value := range map[string]string{"question": text, "reason": reason} {
		if utf8.RuneCountInString(value) > textMax {
			return nil, fmt.Errorf("a %s has at most %d characters", name, textMax)
		}
	}
	if strings.TrimSpace(text) == "" {
		return nil, errors.New("the question is empty")
	}
	q.mutex.Lock()
	defer q.mutex.Unlock()
	if err := q.makeRoom(); err != nil {
		return nil, err
	}
	now := time.Now().UTC()
	question := &Question{ID: newID(), Kind: kind, Text: text, What: what, Reason: reason, At: now, State: stateOpen, Waited: now, done: make(chan struct{})}
	if err := q.save(question); err != nil {
		return nil, fmt.Errorf("the question can't be kept: %w", err)
	}
	q.all[question.ID] = question
	q.signal("question", question)
	return question, nil
}

// makeRoom ends what is too old, and where all places are taken, what nobody has waited for since a while.
func (q *Questions) makeRoom() error {
	now := time.Now()
	open := q.inState(stateOpen)
	for _, question := range open {
		if question.waiting == 0 && now.Sub(question.Waited) > ageMax {
			q.end(question, stateExpired, "")
		}
	}
	if open = q.inState(stateOpen); len(open) >= q.openMax {
		idle := slices.DeleteFunc(slices.Clone(open), func(each *Question) bool {
			return each.waiting > 0 || now.Sub(each.Waited) < roomAfter
		})
		if len(idle) == 0 {
			return fmt.Errorf("%d questions are waiting for the operator already", len(open))
		}
		q.end(idle[0], stateExpired, "")
	}
	for len(q.all) >= keptMax+q.openMax {
		ended := slices.DeleteFunc(q.sorted(), func(each *Question) bool { return each.State == stateOpen })
		delete(q.all, ended[0].ID)
		os.Remove(q.path(ended[0]))
	}
	return nil
}

// setMax changes how many may wait at once.
func (q *Questions) setMax(most int) {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	q.openMax = most
}

// wait returns the question once it has ended, or as it is when the context does.
func (q *Questions) wait(ctx context.Context, id string) (Question, error) {
	q.mutex.Lock()
	question, err := q.find(id)
	if err != nil {
		q.mutex.Unlock()
		return Question{}, err
	}
	question.waiting++
	done := question.done
	q.mutex.Unlock()
	select {
	case <-done:
	case <-ctx.Done():
	}
	q.mutex.Lock()
	defer q.mutex.Unlock()
	question.waiting--
	question.Waited = time.Now().UTC()
	return *question, nil
}

// answer is the operator's. It is an error where there is one already.
func (q *Questions) answer(id, text string, refused bool) error {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	question, err := q.find(id)
	if err != nil {
		return err
	}
	if question.State != stateOpen {
		return fmt.Errorf("%s has been %s already", id, question.State)
	}
	state := stateAnswered
	if refused {
		state = stateRefused
	}
	return q.end(question, state, text)
}

// withdraw ends a question that nobody wants the answer of any more, unless somebody else waits for it.
func (q *Questions) withdraw(id, why string) {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	if question, err := q.find(id); err == nil && question.State == stateOpen && question.waiting == 0 {
		q.end(question, stateWithdrawn, why)
	}
}

// explain adds the agent's reason to something that waits already.
func (q *Questions) explain(id, reason string) error {
	if utf8.RuneCountInString(reason) > textMax {
		return fmt.Errorf("a reason has at most %d characters", textMax)
	}
	q.mutex.Lock()
	defer q.mutex.Unlock()
	question, err := q.find(id)
	if err != nil {
		return err
	}
	question.Reason = reason
	q.signal("question", question)
	return q.save(question)
}

// open are copies of those without an answer, the oldest first.
func (q *Questions) open() []Question {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	found := []Question{}
	for _, question := range q.inState(stateOpen) {
		found = append(found, *question)
	}
	return found
}

// get is a copy of one.
func (q *Questions) get(id string) (Question, error) {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	question, err := q.find(id)
	if err != nil {
		return Question{}, err
	}
	return *question, nil
}

// next is closed at the next change.
func (q *Questions) next() <-chan struct{} {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	return q.changed
}

var idForm = regexp.MustCompile(`[0-9a-f]{16}`)

// find is tolerant: the agent hands back whatever it was given, `pending:ID` or a sentence around it.
func (q *Questions) find(id string) (*Question, error) {
	for _, word := range idForm.FindAllString(id, -1) {
		if question, there := q.all[word]; there {
			return question, nil
		}
	}
	return nil, fmt.Errorf("there is no question %q", cut(id, 60))
}

func (q *Questions) end(question *Question, state, text string) error {
	question.State, question.Answer = state, text
	close(question.done)
	q.signal(state, question)
	return q.save(question)
}

func (q *Questions) signal(event string, question *Question) {
	close(q.changed)
	q.changed = make(chan struct{})
	q.tell(event, *question)
}

func (q *Questions) sorted() []*Question {
	found := make([]*Question, 0, len(q.all))
	for _, question := range q.all {
		found = append(found, question)
	}
	slices.SortFunc(found, func(a, b *Question) int {
		if order := a.At.Compare(b.At); order != 0 {
			return order
		}
		return strings.Compare(a.ID, b.ID)
	})
	return found
}

func (q *Questions) inState(state string) []*Question {
	return slices.DeleteFunc(q.sorted(), func(each *Question) bool { return each.State != state })
}

func (q *Questions) path(question *Question) string {
	return filepath.Join(q.directory, question.ID+".json")
}

// save replaces the question's file in one step.
func (q *Questions) save(question *Question) error {
	text, err := json.Marshal(question)
	if err != nil {
		return err
	}
	temporary := q.path(question) + ".new"
	if err := os.WriteFile(temporary, text, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, q.path(question))
}

// newID cannot be guessed: who knows it may read the answer.
func newID() string {
	var id [8]byte
	rand.Read(id[:])
	return hex.EncodeToString(id[:])
}

// cut shortens text that somebody else has written.
func cut(text string, max int) string {
	if runes := []rune(text); len(runes) > max {
		return string(runes[:max]) + "…"
	}
	return text
}
