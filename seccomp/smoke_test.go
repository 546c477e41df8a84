package seccomp
import ("testing";"encoding/json";"os";"github.com/opencontainers/runtime-spec/specs-go")
func loadDefault(t testing.TB) *specs.LinuxSeccomp { b,err:=os.ReadFile("testdata/containerd-default.json"); if err!=nil{t.Fatal(err)}; var s specs.LinuxSeccomp; if err:=json.Unmarshal(b,&s);err!=nil{t.Fatal(err)}; return &s}
func TestSmoke(t *testing.T){
 var audit []AuditRule
 for _,n:=range []string{"exec","privilege","file-write","file-delete","net"}{c,_:=KnownClass(n);audit=append(audit,c.Rules...)}
 pol:=Policy{Native:ArchAMD64,Pod:loadDefault(t),Audit:audit,Layers:[]Layer{{Name:"baseline",Default:ActionAllow,Deny:[]Rule{{ID:"x",Syscalls:[]string{"ptrace","bpf","mount","umount2"}}}}}}
 p,err:=Compile(pol); if err!=nil{t.Fatal(err)}
 t.Log(len(p.filter),len(p.nodes),len(p.rows),len(p.leaves),len(p.texts))
 m:=newVM(t,p.Filter())
 for _,n:=range []string{"read","openat","ptrace","execve","getpid","keyctl","socket"}{ nr,_:=SyscallNumber(ArchAMD64,n); d:=Data{Nr:int32(nr),Arch:ArchAMD64}; t.Logf("%s %#x %+v",n,m.run(t,&d),p.Decide(&d))}
}
func BenchmarkSmoke(b *testing.B){
 var audit []AuditRule
 for _,n:=range []string{"exec","privilege","file-write","file-delete","net"}{c,_:=KnownClass(n);audit=append(audit,c.Rules...)}
 pol:=Policy{Native:ArchAMD64,Pod:loadDefault(b),Audit:audit,Layers:[]Layer{{Name:"baseline",Default:ActionAllow,Deny:[]Rule{{ID:"x",Syscalls:[]string{"ptrace","bpf","mount","umount2"}}}}}}
 for b.Loop(){Compile(pol)}
}
