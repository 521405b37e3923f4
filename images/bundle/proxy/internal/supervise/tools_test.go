package supervise

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// The TypeScript SDK refuses a tool with a property whose schema is `true`, which is what a field of any type gets.
func TestEveryPropertyOfATypeHasASchemaThatIsAnObject(t *testing.T) {
	ctx := context.Background()
	front, back := mcp.NewInMemoryTransports()
	if _, err := new(daemon).server().Connect(ctx, back, nil); err != nil {
		t.Fatal(err)
	}
	session, err := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, nil).Connect(ctx, front, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	listed, err := session.ListTools(ctx, nil)
	if err != nil || len(listed.Tools) != 8 {
		t.Fatalf("%v, %v", listed, err)
	}
	for _, tool := range listed.Tools {
		text, err := json.Marshal([]any{tool.InputSchema, tool.OutputSchema})
		if err != nil {
			t.Fatal(err)
		}
		var schemas []any
		json.Unmarshal(text, &schemas)
		for _, schema := range schemas {
			lookForOpen(t, tool.Name, schema)
		}
	}
}

func lookForOpen(t *testing.T, where string, schema any) {
	t.Helper()
	object, _ := schema.(map[string]any)
	for name, property := range object {
		if name == "properties" {
			for key, one := range property.(map[string]any) {
				if _, is := one.(map[string]any); !is {
					t.Errorf("%s.%s: %v", where, key, one)
				}
			}
		}
		lookForOpen(t, where+"."+name, property)
	}
}
