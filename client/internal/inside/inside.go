// Package inside keeps the door through which the packages below client/ reach what a Client holds:
// nobody else can make a Pass. It decides nothing and knows nothing.
package inside

// Pass opens the door.
type Pass struct{ _ struct{} }
