module example.org/shortcut

go 1.19
