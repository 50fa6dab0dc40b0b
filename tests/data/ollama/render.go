// Renders chat templates as Ollama does: Go's text/template on Ollama's data.
//
// It reads one JSON object a line: template, messages, tools, think. It writes one a
// line: text or error, the tags that Ollama would read from the template. What Ollama
// does to messages and tools before a template sees them is imitated: turns of one role
// are joined, properties and arguments become maps, unknown fields of a schema are lost.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"text/template"
	"text/template/parse"
)

type ordered struct {
	keys   []string
	values map[string]property
}

func (o *ordered) UnmarshalJSON(data []byte) error {
	o.values = map[string]property{}
	if err := json.Unmarshal(data, &o.values); err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	if _, err := decoder.Token(); err != nil {
		return err
	}
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			return err
		}
		o.keys = append(o.keys, key.(string))
		var skipped json.RawMessage
		if err := decoder.Decode(&skipped); err != nil {
			return err
		}
	}
	return nil
}

func (o *ordered) MarshalJSON() ([]byte, error) {
	pairs := []string{}
	for _, key := range o.keys {
		name, _ := json.Marshal(key)
		value, err := json.Marshal(o.values[key])
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, string(name)+":"+string(value))
	}
	return []byte("{" + strings.Join(pairs, ",") + "}"), nil
}

type kinds []string

func (k *kinds) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*k = kinds{one}
		return nil
	}
	var several []string
	err := json.Unmarshal(data, &several)
	*k = several
	return err
}

func (k kinds) MarshalJSON() ([]byte, error) {
	if len(k) == 1 {
		return json.Marshal(k[0])
	}
	return json.Marshal([]string(k))
}

type property struct {
	AnyOf       []property `json:"anyOf,omitempty"`
	Type        kinds      `json:"type,omitempty"`
	Items       any        `json:"items,omitempty"`
	Description string     `json:"description,omitempty"`
	Enum        []any      `json:"enum,omitempty"`
	Properties  *ordered   `json:"properties,omitempty"`
}

type tool struct {
	Type     string `json:"type"`
	Items    any    `json:"items,omitempty"`
	Function struct {
		Name        string `json:"name"`
		Description string `json:"description"`
		Parameters  struct {
			Type       string              `json:"type"`
			Defs       any                 `json:"$defs,omitempty"`
			Items      any                 `json:"items,omitempty"`
			Required   []string            `json:"required,omitempty"`
			Properties map[string]property `json:"properties"`
		} `json:"parameters"`
	} `json:"function"`
}

type arguments map[string]any

type call struct {
	Function struct {
		Name      string    `json:"name"`
		Arguments arguments `json:"arguments"`
	} `json:"function"`
}

type message struct {
	Role      string `json:"role"`
	Content   string `json:"content"`
	Thinking  string `json:"thinking"`
	ToolCalls []call `json:"tool_calls"`
	ToolName  string `json:"tool_name"`
}

type request struct {
	Template string    `json:"template"`
	Messages []message `json:"messages"`
	Tools    []tool    `json:"tools"`
	Think    *bool     `json:"think"`
}

type answer struct {
	Text  string `json:"text"`
	Error string `json:"error"`
	Open  string `json:"open"`
	Close string `json:"close"`
	Call  string `json:"call"`
}

var functions = template.FuncMap{"json": func(v any) string {
	data, _ := json.Marshal(v)
	return string(data)
}}

// collate joins neighbours of one role, tools left apart, and collects system messages.
func collate(messages []message) (string, []*message) {
	var system []string
	var joined []*message
	for i := range messages {
		one := &messages[i]
		if one.Role == "system" {
			system = append(system, one.Content)
		}
		last := len(joined) - 1
		if last >= 0 && joined[last].Role == one.Role && one.Role != "tool" {
			joined[last].Content += "\n\n" + one.Content
		} else {
			joined = append(joined, one)
		}
	}
	return strings.Join(system, "\n\n"), joined
}

func render(r request) (out answer) {
	parsed, err := template.New("").Option("missingkey=zero").Funcs(functions).Parse(r.Template)
	if err != nil {
		return answer{Error: err.Error()}
	}
	out.Open, out.Close = thinkingTags(parsed.Root)
	out.Call = callTag(parsed.Root.Nodes)
	system, messages := collate(r.Messages)
	var text bytes.Buffer
	err = parsed.Execute(&text, map[string]any{
		"System": system, "Messages": messages, "Tools": r.Tools, "Response": "",
		"Think": r.Think != nil && *r.Think, "ThinkLevel": "", "IsThinkSet": r.Think != nil,
	})
	if err != nil {
		out.Error = err.Error()
	}
	out.Text = text.String()
	return out
}

// mentions tells whether a pipeline asks for a field.
func mentions(node parse.Node, field string) bool {
	switch n := node.(type) {
	case *parse.PipeNode:
		for _, command := range n.Cmds {
			for _, argument := range command.Args {
				if mentions(argument, field) {
					return true
				}
			}
		}
	case *parse.FieldNode:
		for _, name := range n.Ident {
			if name == field {
				return true
			}
		}
	}
	return false
}

// thinkingTags returns the first and last text of the innermost list that shows
// .Thinking inside a loop over messages; the last such list counts.
func thinkingTags(root *parse.ListNode) (open, close string) {
	var visit func(list *parse.ListNode, inside bool)
	visit = func(list *parse.ListNode, inside bool) {
		if list == nil {
			return
		}
		see := func(pipe *parse.PipeNode) {
			if !inside || pipe == nil || !mentions(pipe, "Thinking") {
				return
			}
			if text, ok := list.Nodes[0].(*parse.TextNode); ok {
				open = strings.TrimSpace(string(text.Text))
			}
			if text, ok := list.Nodes[len(list.Nodes)-1].(*parse.TextNode); ok {
				close = strings.TrimSpace(string(text.Text))
			}
		}
		branch := func(b *parse.BranchNode, inside bool) {
			see(b.Pipe)
			visit(b.List, inside)
			visit(b.ElseList, inside)
		}
		for _, node := range list.Nodes {
			switch n := node.(type) {
			case *parse.ActionNode:
				see(n.Pipe)
			case *parse.TemplateNode:
				see(n.Pipe)
			case *parse.IfNode:
				branch(&n.BranchNode, inside)
			case *parse.WithNode:
				branch(&n.BranchNode, inside)
			case *parse.RangeNode:
				branch(&n.BranchNode, mentions(n.Pipe, "Messages"))
			}
		}
	}
	visit(root, false)
	return open, close
}

// callTag returns the first text inside the first "if .ToolCalls", up to its JSON.
func callTag(nodes []parse.Node) string {
	found := findCalls(nodes)
	if found == nil {
		return ""
	}
	text := firstText(found.List.Nodes)
	tag, _, _ := strings.Cut(text, "{")
	return strings.TrimSpace(tag)
}

func branches(node parse.Node) *parse.BranchNode {
	switch n := node.(type) {
	case *parse.IfNode:
		return &n.BranchNode
	case *parse.WithNode:
		return &n.BranchNode
	case *parse.RangeNode:
		return &n.BranchNode
	}
	return nil
}

func findCalls(nodes []parse.Node) *parse.IfNode {
	for _, node := range nodes {
		if n, ok := node.(*parse.IfNode); ok && mentions(n.Pipe, "ToolCalls") {
			return n
		}
		if b := branches(node); b != nil {
			if found := findCalls(b.List.Nodes); found != nil {
				return found
			}
			if b.ElseList != nil {
				if found := findCalls(b.ElseList.Nodes); found != nil {
					return found
				}
			}
		}
	}
	return nil
}

func firstText(nodes []parse.Node) string {
	for _, node := range nodes {
		if text, ok := node.(*parse.TextNode); ok {
			if len(bytes.TrimSpace(text.Text)) > 0 {
				return string(text.Text)
			}
			continue
		}
		if b := branches(node); b != nil {
			return firstText(b.List.Nodes)
		}
		return ""
	}
	return ""
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var r request
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			out.Encode(answer{Error: err.Error()})
			continue
		}
		out.Encode(render(r))
	}
}
