//go:build seccomp && linux && amd64 && cgo

package libseccomp

import ("testing";"os";"encoding/json";"github.com/opencontainers/runtime-spec/specs-go";"metsuke.dev/metsuke/seccomp")

func TestDebug(t *testing.T){
 if os.Getenv("DBG")=="" {t.Skip()}
 var p specs.LinuxSeccomp
 if err:=json.Unmarshal([]byte(os.Getenv("DBG")),&p);err!=nil{t.Fatal(err)}
 g,err:=load(&p); if err!=nil{t.Fatal(err)}
 var c []seccomp.Instruction
 for _,x:=range g.code {c=append(c,seccomp.Instruction{Code:x.Code,JT:x.Jt,JF:x.Jf,K:x.K})}
 t.Log("\n"+seccomp.Disassemble(c))
 v,err:=compare(&p,seeded(0)); t.Log(v,err)
}
