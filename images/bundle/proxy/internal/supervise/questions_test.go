package supervise

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func newQuestions(t *testing.T, directory string, most int) *Questions {
	t.Helper()
	q, err := openQuestions(directory, most, func(string, Question) {})
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func ask(t *testing.T, q *Questions, text string) *Question {
	t.Helper()
	question, err := q.ask(kindQuestion, text, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	return question
}

// An operator who answers tomorrow answers a bundle that has been started anew since.
func TestQuestionsOutliveTheDaemon(t *testing.T) {
	directory := t.TempDir()
	q := newQuestions(t, directory, 4)
	open, answered := ask(t, q, "one"), ask(t, q, "two")
	if err := q.answer(answered.ID, "yes", false); err != nil {
		t.Fatal(err)
	}
	held, err := q.ask(kindRequest, "three", map[string]string{"request": "x"}, "")
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(directory, "half.json"), []byte(`{"id": "ha`), 0o600)
	os.WriteFile(filepath.Join(directory, "other.json"), []byte(`{"id": "0123456789abcdef", "state": "open"}`), 0o600)

	q = newQuestions(t, directory, 4)
	if found := q.open(); len(found) != 1 || found[0].ID != open.ID || found[0].Text != "one" {
		t.Errorf("open: %v", found)
	}
	ended, err := q.wait(context.Background(), answered.ID)
	if err != nil || ended.Answer != "yes" {
		t.Errorf("%v, %v", ended, err)
	}
	if gone, err := q.get(held.ID); err != nil || gone.State != stateWithdrawn {
		t.Errorf("a request that nobody holds any more: %v, %v", gone, err)
	}
	if err := q.answer(open.ID, "no", true); err != nil {
		t.Error(err)
	}
}

func TestAnAnswerIsGivenOnceAndToWhatWasAsked(t *testing.T) {
	q := newQuestions(t, t.TempDir(), 4)
	if err := q.answer("0123456789abcdef", "yes", false); err == nil || err.Error() != `there is no question "0123456789abcdef"` {
		t.Error(err)
	}
	question := ask(t, q, "once?")
	if err := q.answer(question.ID, "yes", false); err != nil {
		t.Fatal(err)
	}
	if err := q.answer(question.ID, "no", true); err == nil || !strings.Contains(err.Error(), "has been answered already") {
		t.Error(err)
	}
}

// get_answer takes whatever ask_operator printed, and what an agent makes of it.
func TestAQuestionIsFoundByWhatTheAgentWasGiven(t *testing.T) {
	q := newQuestions(t, t.TempDir(), 4)
	question := ask(t, q, "?")
	for _, form := range []string{"%s", "pending:%s", " pending:%s\n", `the question is kept: pending:%s`} {
		if found, err := q.get(fmt.Sprintf(form, question.ID)); err != nil || found.ID != question.ID {
			t.Errorf("%q: %v", form, err)
		}
	}
}

func TestWhatIsTooMuchIsRefusedInWords(t *testing.T) {
	q := newQuestions(t, t.TempDir(), 2)
	for text, want := range map[string]string{" ": "the question is empty", strings.Repeat("ä", textMax+1): "at most 8000 characters"} {
		if _, err := q.ask(kindQuestion, text, nil, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v", err)
		}
	}
	one := ask(t, q, "one")
	if err := q.explain(one.ID, strings.Repeat("ä", textMax+1)); err == nil || !strings.Contains(err.Error(), "at most 8000 characters") {
		t.Errorf("a reason: %v", err)
	}
	ask(t, q, "two")
	if _, err := q.ask(kindQuestion, "three", nil, ""); err == nil || err.Error() != "2 questions are waiting for the operator already" {
		t.Errorf("the cap on questions: %v", err)
	}
}

// An asker that is gone for good must not close the door to others.
func TestWhatNobodyWaitsForMakesRoomAndAges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQuestions(t, t.TempDir(), 2)
		first := ask(t, q, "one")
		time.Sleep(time.Second)
		second := ask(t, q, "two")
		waiting, cancel := context.WithCancel(context.Background())
		go q.wait(waiting, first.ID)
		time.Sleep(roomAfter + time.Second)
		ask(t, q, "three")
		if found, _ := q.get(second.ID); found.State != stateExpired {
			t.Errorf("nobody waits for it, and it is %s", found.State)
		}
		if found, _ := q.get(first.ID); found.State != stateOpen {
			t.Errorf("somebody waits for it, and it is %s", found.State)
		}
		cancel()
		synctest.Wait()
		time.Sleep(ageMax + time.Second)
		ask(t, q, "four")
		if open := q.open(); len(open) != 1 {
			t.Errorf("older than a day: %v", open)
		}
	})
}

func TestAnsweredQuestionsAreForgottenInTheEnd(t *testing.T) {
	directory := t.TempDir()
	q := newQuestions(t, directory, 1)
	for i := range keptMax + 20 {
		question := ask(t, q, fmt.Sprint(i))
		if err := q.answer(question.ID, "yes", false); err != nil {
			t.Fatal(err)
		}
	}
	files, _ := filepath.Glob(filepath.Join(directory, "*"))
	if len(files) > keptMax+1 || len(q.all) > keptMax+1 {
		t.Errorf("%d files, %d in memory", len(files), len(q.all))
	}
}

func TestAQuestionThatCannotBeKeptIsNotAsked(t *testing.T) {
	directory := t.TempDir()
	q := newQuestions(t, directory, 1)
	os.RemoveAll(directory)
	if _, err := q.ask(kindQuestion, "?", nil, ""); err == nil || !strings.Contains(err.Error(), "can't be kept") {
		t.Error(err)
	}
	if len(q.open()) != 0 {
		t.Error("it waits all the same")
	}
}

func TestWithdrawingLeavesWhatSomebodyElseWaitsFor(t *testing.T) {
	q := newQuestions(t, t.TempDir(), 4)
	question := ask(t, q, "?")
	q.mutex.Lock()
	q.all[question.ID].waiting = 1
	q.mutex.Unlock()
	q.withdraw(question.ID, "gone")
	if found, _ := q.get(question.ID); found.State != stateOpen {
		t.Error(found.State)
	}
}
